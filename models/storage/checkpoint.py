"""Checkpoints that are complete or absent, and whose damage is detected.

A checkpoint is a folder `step-00001234/` with

    model.safetensors      everything the method trains with: student, teachers, queues
    optimizer.safetensors  the optimizer's tensors, named "parameter.entry"
    pairing.safetensors    the partners that the plan draws from, if the method has any
    state.json             step, samples seen, scaler, the optimizer's numbers, and the run's configuration
    manifest.json          the SHA-256 of each of these files, written last and compared on reading

It is written under a temporary name, synced, and renamed. Tensors are stored as safetensors and the rest as JSON:
nothing in a checkpoint can run code. Disk space: one copy of the state for each checkpoint that is kept, and one more
while one is written.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load as tensors_of
from safetensors.torch import save_file
from torch import Tensor

from models.method import Method
from models.storage.atomic_files import make_folder, sync_file
from models.storage.manifest import (
    PAIRING,
    CorruptCheckpoint,
    digests_of,
    forget,
    is_intact,
    read,
    remember,
    stats_of,
    write_manifest,
)
from models.storage.snapshot import HostCopy, Snapshot
from pipelines.formats.sync import sync_folder
from pipelines.plan.pairing import Pairing

_BEFORE = "-before"
_NAME = re.compile(rf"step-[0-9]{{8,18}}({_BEFORE})?")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `apply` restores a method and its optimizer from it."""

    path: Path
    state: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pairing: Pairing | None

    def apply(self, method: Method, optimizer: torch.optim.Optimizer) -> None:
        """Restore weights, queues, partners and the optimizer's state; the optimizer keeps the groups of its recipe.

        Raises:
            RuntimeError: the checkpoint is of another network.
        """
        method.load_state_dict(self.model)
        method.pairing = self.pairing
        entries: dict[int, dict[str, Any]] = {
            int(number): dict(kept) for number, kept in self.state["optimizer"]["state"].items()
        }
        for name, tensor in self.optimizer.items():
            number, entry = name.split(".", 1)
            entries.setdefault(int(number), {})[entry] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": entries})


def save(folder: Path, method: Method, optimizer: torch.optim.Optimizer, state: dict[str, Any], keep: int = 2) -> Path:
    """Write checkpoint `state["step"]` into `folder` and wait for the disk; see `write`."""
    return write(folder, HostCopy().take(method, optimizer, state), keep)


def write(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write a checkpoint into `folder`, and remove all but the newest `keep` and the best one.

    Raises:
        OSError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    make_folder(folder)
    path = folder / f"step-{snapshot.step:08d}"
    unnamed = folder / f".{path.name}.partial"
    for unfinished in folder.glob(".step-*.partial"):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed while it wrote
    try:
        unnamed.mkdir()
        (unnamed / "state.json").write_text(snapshot.state)
        _write(save_file, snapshot.model, unnamed / "model.safetensors")
        _write(save_file, snapshot.optimizer, unnamed / "optimizer.safetensors")
        if snapshot.pairing is not None:
            _write(save_arrays, _arrays(snapshot.pairing), unnamed / PAIRING)
        write_manifest(unnamed)
        for file in unnamed.iterdir():
            sync_file(file)
        sync_folder(unnamed)
        if path.exists():
            shutil.rmtree(_aside(path), ignore_errors=True)
            path.rename(_aside(path))  # found there if the process dies before the next line
        unnamed.rename(path)
    except BaseException:
        shutil.rmtree(unnamed, ignore_errors=True)
        raise
    sync_folder(folder)
    remember(path, stats_of(path))
    _prune(folder, path, keep)
    return path


def newest(
    folder: Path, check: Callable[[Mapping[str, Any]], None] = lambda state: None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that loads, and a line about each newer one that does not.

    Args:
        check: validates the state of a checkpoint that loads; one for which it raises `CorruptCheckpoint` is skipped
            too.

    Raises:
        OSError: the disk cannot be read, so it is unknown whether there is a newer one.
    """
    skipped: list[str] = []
    for path in list_checkpoints(folder):
        try:
            checkpoint = load(path)
            check(checkpoint.state)
            return checkpoint, skipped
        except CorruptCheckpoint as error:
            skipped.append(f"{path.name} is damaged and was skipped ({error})")
    return None, skipped


def best(folder: Path) -> Checkpoint | None:
    """Return the checkpoint with the highest kNN accuracy of its own weights, the newest of equals.

    None where no checkpoint that is kept and loads was measured.

    Raises:
        OSError: the disk cannot be read.
    """
    for path in _by_accuracy(list_checkpoints(folder)):
        try:
            return load(path)
        except CorruptCheckpoint:
            continue
    return None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint folder, each file once, and compare it with its manifest.

    Raises:
        CorruptCheckpoint: a file is not what was written.
        OSError: the disk cannot be read.
    """
    stats, digests = stats_of(path), digests_of(path)
    state = read(path / "state.json", partial(_state_of, _step(path)), digests)
    model, optimizer = (read(path / f"{name}.safetensors", tensors_of, digests) for name in ("model", "optimizer"))
    pairing = read(path / PAIRING, _pairing, digests) if PAIRING in digests else None
    remember(path, stats)
    return Checkpoint(path, state, model, optimizer, pairing)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the paths of checkpoints, newest first; folders with other names are ignored.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise OSError(f"{folder} cannot be read ({error.strerror})") from None
    named = [folder / name for name in names if _NAME.fullmatch(name)]
    return sorted(named, key=lambda path: (_step(path), not path.name.endswith(_BEFORE)), reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").removesuffix(_BEFORE))


def _prune(folder: Path, last: Path, keep: int) -> None:
    """Remove all but the newest `keep` intact checkpoints up to `last` and the best of these; keep what cannot be read.

    Checkpoints of later steps are removed as well: a resumed run has started before them.
    """
    intact, unread = [], set()
    for path in list_checkpoints(folder):
        try:
            if is_intact(path) and (path == last or _step(path) < _step(last)):
                intact.append(path)
        except OSError:
            unread.add(path)
    for old in set(list_checkpoints(folder)) - set(intact[:keep]) - set(_by_accuracy(intact)[:1]) - unread:
        shutil.rmtree(old, ignore_errors=True)
        forget(old)


def _by_accuracy(paths: list[Path]) -> list[Path]:
    """Return the checkpoints whose accuracy was measured at their own step, the best first and the newest of equals."""
    measured: list[tuple[float, int, Path]] = []
    for path in paths:
        try:
            state = read(path / "state.json", partial(_state_of, _step(path)))
        except CorruptCheckpoint:
            continue  # a damaged checkpoint is not the best
        top1 = state.get("knn_top1")
        if isinstance(top1, int | float) and 0 <= top1 <= 100 and state.get("knn_step") == state["step"]:
            measured.append((top1, state["step"], path))
    return [path for _, _, path in sorted(measured, reverse=True)]


def _state_of(step: int, content: bytes) -> dict[str, Any]:
    """Parse state.json of this step, and validate the entries that this module relies on."""
    state = json.loads(content)
    if not isinstance(state, dict) or type(state.get("step")) is not int or state["step"] != step:
        raise ValueError(f"its step is not {step}, that of the folder")
    numbers = state["optimizer"]["state"]
    if not all(name.isdecimal() and isinstance(kept, dict) for name, kept in numbers.items()):
        raise ValueError(f"optimizer.state is {reprlib.repr(numbers)}")
    return state


def _aside(path: Path) -> Path:
    """Return where a checkpoint waits while another one of the same step takes its place."""
    return path.with_name(path.name + _BEFORE)


def _write(save_file: Callable[..., None], tensors: Mapping[str, Any], path: Path) -> None:
    """Save tensors; report a failure of the disk as an OSError, like everywhere else."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path} ({error})") from None
    shutil.copymode(path.with_name("state.json"), path)  # safetensors makes private files; the user's umask decides


def _arrays(pairing: Pairing) -> dict[str, Any]:
    mix = np.array([pairing.mix_probability, pairing.mix_alpha])
    return {"pool": pairing.pool, "start": pairing.start, "count": pairing.count, "mix": mix}


def _pairing(content: bytes) -> Pairing:
    arrays = arrays_of(content)
    probability, alpha = (float(number) for number in arrays["mix"])
    return Pairing(arrays["pool"], arrays["start"], arrays["count"], probability, alpha)
