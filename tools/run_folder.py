"""The folder of a run: config.json, metrics.jsonl, checkpoints/ and summary.json. Only the main process writes."""

from __future__ import annotations

import json
import os
import platform
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from models.recipes import Recipe
from pipelines import Dataset
from tools.options import Failure

_PACKAGES = ("torch", "accelerate", "numpy", "ffcv", "numba", "nvidia-dali-cuda130")


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
        self.rows = 0  # of metrics.jsonl, that this run stands on
        if not main:
            return
        if not resume and self._metrics.exists() and _has_trained(self._metrics):  # else it failed at its start
            raise Failure(f"{path} holds a run; go on with --resume, or take another --output")
        try:
            path.mkdir(parents=True, exist_ok=True)
            with self._metrics.open("a" if resume else "w"):
                pass
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
            self.rows += 1

    def rewind(self, rows: int) -> None:
        """Keeps the first `rows` rows; a resumed run makes the others again."""
        if self._main:
            kept = self._metrics.read_text().splitlines(keepends=True)[:rows]
            partial = self._metrics.with_suffix(".partial")
            partial.write_text("".join(kept))
            partial.replace(self._metrics)
            self.rows = len(kept)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json: what came out."""
        self._write("summary.json", summary)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self._main:
            partial = self.path / f".{name}.partial"
            partial.write_text(json.dumps(content, indent=2) + "\n")
            partial.replace(self.path / name)


def _has_trained(metrics: Path) -> bool:
    """Whether a row is of a step behind the first: what comes before it can be made again in a moment."""
    lines = metrics.read_text(errors="replace").splitlines()
    return any('"step": 0,' not in line for line in lines if line)


def run_config(options: Namespace, recipe: Recipe, dataset: Dataset, accelerator: Accelerator) -> dict[str, Any]:
    """What config.json holds: every value that decides a run, and where it ran."""
    values = asdict(recipe.training) | asdict(recipe.settings)
    return {
        "method": recipe.method,
        "recipe_name": recipe.name,
        "recipe": {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        "sources": dict(recipe.sources),
        "options": vars(options),
        "data": {
            "path": str(options.data), "number": dataset.number, "classes": list(dataset.classes),
            "mean": list(dataset.mean), "std": list(dataset.std), "checksum": dataset.checksum,
        },
        "world_size": accelerator.num_processes,
        "device": str(accelerator.device),
        "versions": versions(),
        "machine": machine(),
    }  # fmt: skip


def refuse_another_run(checkpoint: dict[str, Any], asked: dict[str, Any]) -> None:
    """Compares what a checkpoint's run was with what is asked for now.

    Raises:
        Failure: another method, seed or recipe value, or other data.
    """
    fixed = {name: asked[name] for name in ("method", "seed", "accumulate")}
    for name, value in (fixed | asked["recipe"]).items():
        was = (checkpoint | checkpoint["recipe"]).get(name)
        if was != value:
            raise Failure(f"the run was started with {name} {was}, not {value}; give the same, or another --output")
    if checkpoint["data_checksum"] != asked["data_checksum"]:
        raise Failure("the run was trained on other data than --data; give that, or another --output")


def versions(*further: str) -> dict[str, str]:
    """Versions of what a result depends on, and of `further` packages, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *further):
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
