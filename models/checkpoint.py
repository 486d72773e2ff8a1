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

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.method import Method
from models.snapshot import HostCopy, Snapshot
from pipelines.pairing import Pairing

_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-\d{8,}(-before)?")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `apply` puts it into a method and its optimizer."""

    path: Path
    state: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pairing: Pairing | None

    def apply(self, method: Method, optimizer: torch.optim.Optimizer) -> None:
        """Restores weights, queues, partners and the optimizer.

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
        optimizer.load_state_dict({"state": entries, "param_groups": self.state["optimizer"]["param_groups"]})


def save(folder: Path, method: Method, optimizer: torch.optim.Optimizer, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes checkpoint `state["step"]` into `folder` and waits for the disk; see `write`."""
    return write(folder, HostCopy().take(method, optimizer, state), keep)


def write(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Writes a checkpoint into `folder` and removes all but the newest `keep` and the best one.

    Raises:
        OSError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{snapshot.step:08d}"
    partial = folder / f".{path.name}.partial"
    for left in folder.glob(".step-*.partial"):
        shutil.rmtree(left, ignore_errors=True)  # of a run that was killed while it wrote
    try:
        partial.mkdir()
        (partial / "state.json").write_text(snapshot.state)
        _write(save_file, snapshot.model, partial / "model.safetensors")
        _write(save_file, snapshot.optimizer, partial / "optimizer.safetensors")
        if snapshot.pairing is not None:
            _write(save_arrays, _arrays(snapshot.pairing), partial / "pairing.safetensors")
        seal(partial)
        for file in [*partial.iterdir(), partial]:
            _sync(file)
        if path.exists():
            shutil.rmtree(_aside(path), ignore_errors=True)
            path.rename(_aside(path))  # still found there, should the next line never be reached
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(folder)
    # Later steps can only be damaged ones that a resumed run went back behind: they must not push out valid ones.
    valid = [found for found in _found(folder) if found.name <= path.name]
    for old in set(_found(folder)) - set(valid[:keep]) - set(_by_accuracy(valid)[:1]):
        shutil.rmtree(old, ignore_errors=True)
    return path


def seal(path: Path) -> None:
    """Writes the manifest of a checkpoint's files: whatever changes one of them later is noticed."""
    digests = {file.name: _digest(file) for file in sorted(path.iterdir()) if file.name != _MANIFEST}
    (path / _MANIFEST).write_text(json.dumps(digests))


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that loads, and a line for each newer one that does not."""
    skipped: list[str] = []
    for path in _found(folder):
        try:
            return load(path), skipped
        except _UNREADABLE as error:
            skipped.append(f"{path.name} is damaged and was skipped ({type(error).__name__}: {error})")
    return None, skipped


def best(folder: Path) -> Checkpoint | None:
    """The checkpoint that loads and has the highest kNN accuracy of its own weights, the newest of equals.

    None where no kept checkpoint was measured.
    """
    for path in _by_accuracy(_found(folder)):
        try:
            return load(path)
        except _UNREADABLE:
            continue
    return None


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint folder and compares it with its manifest.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError: what is wrong with it.
    """
    digests: dict[str, str] = json.loads((path / _MANIFEST).read_text())
    for name, digest in digests.items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is not what was written: its checksum differs")
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    pairing = _pairing(load_arrays(path / "pairing.safetensors")) if "pairing.safetensors" in digests else None
    return Checkpoint(
        path, state, load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors"), pairing
    )


def _found(folder: Path) -> list[Path]:
    """Checkpoints, newest first; a folder that somebody has named otherwise is nobody's business here."""
    named = (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
    return sorted(named, reverse=True) if folder.is_dir() else []


def _by_accuracy(paths: list[Path]) -> list[Path]:
    """Those whose accuracy was measured at the very step that they hold, the best first and the newest of equals."""
    measured: list[tuple[float, int, Path]] = []
    for path in paths:
        try:
            state = json.loads((path / "state.json").read_text())
            if state["knn_top1"] is not None and state["knn_step"] == state["step"]:
                measured.append((float(state["knn_top1"]), int(state["step"]), path))
        except _UNREADABLE:
            continue  # damaged: it is nobody's best
    return [path for _, _, path in sorted(measured, reverse=True)]


def _aside(path: Path) -> Path:
    """Where a checkpoint waits while another one of the same step takes its place."""
    return path.with_name(f"{path.name}-before")


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


def _pairing(arrays: Mapping[str, Any]) -> Pairing:
    probability, alpha = (float(number) for number in arrays["mix"])
    return Pairing(arrays["pool"], arrays["start"], arrays["count"], probability, alpha)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
