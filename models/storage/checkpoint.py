"""Checkpoints that are whole or absent, and say when they are damaged.

A checkpoint is a folder `step-00001234/` with

    model.safetensors      everything the method trains with: student, teachers, queues
    optimizer.safetensors  the optimizer's tensors, named "parameter.entry"
    pairing.safetensors    the partners that the plan draws from, where the method has them
    state.json             step, samples seen, scaler, the optimizer's numbers, and what the run was
    manifest.json          the SHA-256 of each of these, written last and compared when they are read

Written under another name, synced, renamed. Tensors travel as safetensors and the rest as JSON: nothing in a
checkpoint can run code. Cost: one copy of the state on disk for each that is kept, and one more while one is written.
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
    is_whole,
    look_of,
    read,
    remember,
    write_manifest,
)
from models.storage.snapshot import HostCopy, Snapshot
from pipelines.formats.sync import sync_folder
from pipelines.plan.pairing import Pairing

_BEFORE = "-before"
_NAME = re.compile(rf"step-[0-9]{{8,18}}({_BEFORE})?")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `apply` puts it into a method and its optimizer."""

    path: Path
    state: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pairing: Pairing | None

    def apply(self, method: Method, optimizer: torch.optim.Optimizer) -> None:
        """Restores weights, queues, partners and the optimizer's state; its groups are the recipe's, as they are.

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
    """Writes checkpoint `state["step"]` into `folder` and waits for the disk; see `write`."""
    return write(folder, HostCopy().take(method, optimizer, state), keep)


def write(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Writes a checkpoint into `folder` and removes all but the newest `keep` and the best one.

    Raises:
        OSError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    make_folder(folder)
    path = folder / f"step-{snapshot.step:08d}"
    unnamed = folder / f".{path.name}.partial"
    for left in folder.glob(".step-*.partial"):
        shutil.rmtree(left, ignore_errors=True)  # of a run that was killed while it wrote
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
            path.rename(_aside(path))  # still found there, should the next line never be reached
        unnamed.rename(path)
    except BaseException:
        shutil.rmtree(unnamed, ignore_errors=True)
        raise
    sync_folder(folder)
    remember(path, look_of(path))
    _prune(folder, path, keep)
    return path


def newest(
    folder: Path, check: Callable[[Mapping[str, Any]], None] = lambda state: None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that loads, and a line for each newer one that does not.

    Args:
        check: looks at the state of one that loads; what it raises `CorruptCheckpoint` for is skipped too.

    Raises:
        OSError: the disk cannot be read: whether there is a newer one, nobody knows.
    """
    skipped: list[str] = []
    for path in found(folder):
        try:
            loaded = load(path)
            check(loaded.state)
            return loaded, skipped
        except CorruptCheckpoint as error:
            skipped.append(f"{path.name} is damaged and was skipped ({error})")
    return None, skipped


def best(folder: Path) -> Checkpoint | None:
    """The checkpoint that loads and has the highest kNN accuracy of its own weights, the newest of equals.

    None where no kept checkpoint was measured.

    Raises:
        OSError: the disk cannot be read.
    """
    for path in _by_accuracy(found(folder)):
        try:
            return load(path)
        except CorruptCheckpoint:
            continue
    return None


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint folder, each file once, and compares it with its manifest.

    Raises:
        Damaged: it is not what was written.
        OSError: the disk cannot be read.
    """
    look, digests = look_of(path), digests_of(path)
    state = read(path / "state.json", partial(_state_of, _step(path)), digests)
    model, optimizer = (read(path / f"{name}.safetensors", tensors_of, digests) for name in ("model", "optimizer"))
    pairing = read(path / PAIRING, _pairing, digests) if PAIRING in digests else None
    remember(path, look)
    return Checkpoint(path, state, model, optimizer, pairing)


def found(folder: Path) -> list[Path]:
    """Checkpoints, newest first; a folder that somebody has named otherwise is nobody's business here.

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
    """Removes all but the newest `keep` whole ones up to `last`, the best of these, and what the disk cannot read.

    Later steps are those that a resumed run went back behind.
    """
    whole, unread = [], set()
    for path in found(folder):
        try:
            if is_whole(path) and (path == last or _step(path) < _step(last)):
                whole.append(path)
        except OSError:
            unread.add(path)
    for old in set(found(folder)) - set(whole[:keep]) - set(_by_accuracy(whole)[:1]) - unread:
        shutil.rmtree(old, ignore_errors=True)
        forget(old)


def _by_accuracy(paths: list[Path]) -> list[Path]:
    """Those whose accuracy was measured at the very step that they hold, the best first and the newest of equals."""
    measured: list[tuple[float, int, Path]] = []
    for path in paths:
        try:
            state = read(path / "state.json", partial(_state_of, _step(path)))
        except CorruptCheckpoint:
            continue  # it is nobody's best
        top1 = state.get("knn_top1")
        if isinstance(top1, int | float) and 0 <= top1 <= 100 and state.get("knn_step") == state["step"]:
            measured.append((top1, state["step"], path))
    return [path for _, _, path in sorted(measured, reverse=True)]


def _state_of(step: int, content: bytes) -> dict[str, Any]:
    """What state.json of this step holds, where that is what checkpoints themselves rely on."""
    state = json.loads(content)
    if not isinstance(state, dict) or type(state.get("step")) is not int or state["step"] != step:
        raise ValueError(f"its step is not {step}, that of the folder")
    numbers = state["optimizer"]["state"]
    if not all(name.isdecimal() and isinstance(kept, dict) for name, kept in numbers.items()):
        raise ValueError(f"optimizer.state is {reprlib.repr(numbers)}")
    return state


def _aside(path: Path) -> Path:
    """Where a checkpoint waits while another one of the same step takes its place."""
    return path.with_name(path.name + _BEFORE)


def _write(save_file: Callable[..., None], tensors: Mapping[str, Any], path: Path) -> None:
    """Saves tensors; what the disk refuses is an OSError, as everywhere else."""
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
