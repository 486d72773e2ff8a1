"""What the processes of a run owe each other: to start as the same run, and to say so when one of them is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from models.distributed import world
from models.methods.recipes import Recipe
from pipelines import Dataset
from tools.command_line import Failure
from tools.run.options import RunOptions
from tools.run.process_start import parent_words
from tools.run.state import RunState

LOST = 75  # exit code of a process that lost another one: "temporary failure", so that a scheduler may start it again
_ROOT = Path(__file__).resolve().parents[2]
_PLACES = ("data", "val_data", "output", "threads", "loader")  # options that machines may have their own values of
_REMEDIES = {
    "data": "give every machine the same converted file",
    "options": "start every process with the same ones",
    "code": "install one version of the project on every machine",
    "torch": "install one version on every machine",
    "checkpoint": "the run's folder must be on a file system that all machines share",
}


class LostContact(Failure):
    """Another process of the run is gone or silent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=LOST)


@contextmanager
def detect_lost_peers(state: RunState, timeout: float) -> Iterator[None]:
    """Turns what torch raises about a lost process into one line; `state.step` is how far this one is.

    Raises:
        LostContact: naming this process, its step, and how to go on.
    """
    try:
        yield
    except RuntimeError as error:
        if not _from_peer(error):
            raise
        rank, processes = world()
        raise LostContact(
            f"process {rank} of {processes} lost contact with another after step {state.step} "
            f"(gone, or silent for {timeout:g} s); start all of them again with --resume"
        ) from error


def _from_peer(error: RuntimeError) -> bool:
    """Whether a collective failed: torch's own errors of this kind, or gloo's, which have no type."""
    return world()[1] > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())


def run_facts(options: RunOptions, recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """What must be the same for all processes of a run, as short texts."""
    chosen = {name: value for name, value in asdict(options).items() if name not in _PLACES}
    return {
        "data": dataset.checksum,
        "options": _digest(json.dumps([chosen, repr(recipe)], default=str, sort_keys=True).encode()),
        "code": _digest(*(path.read_bytes() for path in sorted(_sources()))),
        "torch": torch.__version__,
    }


def check_agreement(facts: Mapping[str, str]) -> None:
    """Compares `facts` over all processes, which must all call it.

    Raises:
        Failure: on every process, naming the first that differs from process 0, and in what.
    """
    every: list[Any] = [None] * world()[1]
    if len(every) == 1:
        return
    dist.all_gather_object(every, dict(facts))
    for rank, other in enumerate(every):
        for name, value in every[0].items():
            if other[name] != value:
                raise Failure(
                    f"process {rank} differs from process 0 in {name} ({other[name]}, not {value}); {_REMEDIES[name]}"
                )


def processes_meant() -> int:
    """How many processes `accelerate launch` was asked for, or 1: with --cpu it starts one and says nothing."""
    words = parent_words()
    if not any("accelerate" in word for word in words[:3]):
        return 1
    for flag in ("--num_processes", "--num-processes"):
        for place, word in enumerate(words):
            name, _, value = word.partition("=")
            value = value or (words[place + 1] if place + 1 < len(words) else "")
            if name == flag and value.isdigit():
                return int(value)
    return 1


def _sources() -> Iterator[Path]:
    """The project's programs and packages."""
    yield from _ROOT.glob("*.py")
    for package in ("models", "pipelines", "tools"):
        yield from (_ROOT / package).rglob("*.py")


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:12]
