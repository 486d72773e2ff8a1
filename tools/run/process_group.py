"""Checks across the processes of a run: whether all were started alike, and whether one of them was lost.

Processes that differ in data, options or code would train on in silence and produce a wrong result, so each compares a
few digests with process 0 before the first step. A process that dies or hangs makes a collective fail in the others
(at once, or after the timeout); torch's error, which names sockets and threads, is replaced by one line that says what
to do.
"""

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
from tools.run.process_start import parent_command
from tools.run.state import RunState

LOST = 75  # exit code after losing a process: EX_TEMPFAIL, "temporary failure", which a scheduler may take as "retry"
_ROOT = Path(__file__).resolve().parents[2]
#: Options whose values may differ between machines.
_PER_MACHINE = ("data", "val_data", "output", "threads", "loader", "init")
#: How to fix a difference in each of the facts that are compared.
_REMEDIES = {
    "data": "give every machine the same converted file",
    "held-out images": "give every machine the same --val-data, or the same files beside --data",
    "options": "start every process with the same options",
    "code": "install the same version of the project on every machine",
    "torch": "install the same version of torch on every machine",
    "init": "give every machine the same file of weights",
    "checkpoint": "the run's folder must be on a file system that all machines share",
}


class LostContact(Failure):
    """Another process of the run is gone or silent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=LOST)


@contextmanager
def detect_lost_peers(state: RunState, timeout: float) -> Iterator[None]:
    """Replace torch's error about a failed collective by one line; other errors pass unchanged.

    Args:
        state: the state of the run; its step at the time of the error is in the message.
        timeout: seconds of silence after which collectives fail, for the message.

    Raises:
        LostContact: names this process, its step, and how to continue.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_communication_error(error):
            raise
        rank, processes = world()
        raise LostContact(
            f"process {rank} of {processes} lost contact with another after step {state.step} "
            f"(gone, or silent for {timeout:g} s); start all of them again with --resume"
        ) from error


def _is_communication_error(error: RuntimeError) -> bool:
    """Return whether a collective failed. gloo raises plain RuntimeErrors, which only their text tells apart."""
    return world()[1] > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())


def run_facts(options: RunOptions, recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """Return what must be equal on all processes of a run, as short texts and digests."""
    shared = {name: value for name, value in asdict(options).items() if name not in _PER_MACHINE}
    return {
        "data": dataset.checksum,
        "options": _digest(json.dumps([shared, repr(recipe)], default=str, sort_keys=True).encode()),
        "code": _digest(*(path.read_bytes() for path in sorted(_source_files()))),
        "torch": torch.__version__,
    }


def check_agreement(facts: Mapping[str, str]) -> None:
    """Compare `facts` with those of process 0. Every process must call it.

    Raises:
        Failure: on every process; it names the first process that differs, what differs, and how to fix it.
    """
    all_facts: list[Any] = [None] * world()[1]
    if len(all_facts) == 1:
        return
    dist.all_gather_object(all_facts, dict(facts))
    for rank, other in enumerate(all_facts):
        for name, value in all_facts[0].items():
            if other[name] != value:
                raise Failure(
                    f"process {rank} differs from process 0 in {name} ({other[name]}, not {value}); {_REMEDIES[name]}"
                )


def requested_processes() -> int:
    """Return how many processes `accelerate launch` was asked to start; 1 if another program started this one.

    `accelerate launch --cpu --num_processes N` starts a single process without a warning, so the run has to give one.
    """
    words = parent_command()
    if not any("accelerate" in word for word in words[:3]):
        return 1
    for flag in ("--num_processes", "--num-processes"):
        for word, next_word in zip(words, [*words[1:], ""], strict=True):
            name, _, value = word.partition("=")
            value = value or next_word
            if name == flag and value.isdigit():
                return int(value)
    return 1


def _source_files() -> Iterator[Path]:
    """Yield the source files of the project's programs and packages."""
    yield from _ROOT.glob("*.py")
    for package in ("models", "pipelines", "tools"):
        yield from (_ROOT / package).rglob("*.py")


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:12]
