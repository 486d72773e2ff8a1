"""The folder of a run: config.json, metrics.jsonl, checkpoints/ and summary.json. Only the main process writes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tools.options import Failure

_PACKAGES = ("torch", "accelerate", "numpy", "ffcv", "numba")


class RunFolder:
    """Where a run writes.

    Args:
        path: made where it does not exist.
        resume: go on in a folder that holds a run; without it, such a folder is refused.
        main: whether this process writes.

    Raises:
        Failure: the folder holds a run already, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool, main: bool) -> None:
        self.path, self._main = path, main
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        if not main:
            return
        if self._metrics.exists() and not resume:
            raise Failure(f"{path} holds a run; go on with --resume, or take another --output")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._metrics.touch()
        except OSError as error:
            raise Failure(f"cannot write the run's folder {path}: {error.strerror}; take another --output") from None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json: what the run was asked to do."""
        self._write("config.json", config)

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to metrics.jsonl; it is on the disk's way before this returns, so that a kill loses no row."""
        if self._main:
            with self._metrics.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def rewind(self, step: int) -> None:
        """Drops the rows after `step`, which a resumed run will make again."""
        if self._main:
            kept = "".join(f"{line}\n" for line in _rows_until(self._metrics.read_text().splitlines(), step))
            partial = self._metrics.with_suffix(".partial")
            partial.write_text(kept)
            partial.replace(self._metrics)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json: what came out."""
        self._write("summary.json", summary)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self._main:
            partial = self.path / f".{name}.partial"
            partial.write_text(json.dumps(content, indent=2) + "\n")
            partial.replace(self.path / name)


def _rows_until(lines: list[str], step: int) -> Iterator[str]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            return  # the last line of a killed run may be cut
        if row["step"] > step:
            return
        yield line


def versions() -> dict[str, str]:
    """Versions of what a result depends on, and the machine."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The hardware of this process."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _processor(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
