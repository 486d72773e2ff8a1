"""How far a run of another process is, read from its folder while it trains."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path


def metrics_inode(run: Path) -> int:
    """Return the inode of metrics.jsonl, or 0 if there is no such file. It changes when the run is resumed."""
    with contextlib.suppress(OSError):
        return (run / "metrics.jsonl").stat().st_ino
    return 0


def last_logged_step(run: Path) -> int:
    """Return the step of the last complete row of metrics.jsonl, which may be being written; -1 if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError), (run / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
        return int(json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])["step"])
    return -1


def last_saved_step(run: Path) -> int:
    """Return the step of the newest complete checkpoint, read from its name; -1 if there is none."""
    return max((int(path.name[5:13]) for path in (run / "checkpoints").glob("step-*")), default=-1)


def checkpoint_is_being_written(run: Path) -> bool:
    """Return whether the run has a partly written checkpoint."""
    return any((run / "checkpoints").glob(".step-*.partial"))
