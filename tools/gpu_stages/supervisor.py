"""Runs a stage in a process of its own, under a time limit, and shows its output while it comes.

The process writes to a log file and this one copies from there to the terminal. So a terminal or a pipe that goes away
costs nothing but the view, and the last lines of a stage that fails are known.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.gpu_stages.result_file import DONE, FAILED, STOPPED

_POLL = 0.1  # seconds between two looks at a log
_LAST = 12  # lines of a log that are kept with a failure


@dataclass(frozen=True)
class Ending:
    """How a stage ended: its state, how long it took, and if it is not done the last lines of its log."""

    state: str
    seconds: float
    last_lines: tuple[str, ...] = ()


def supervise(words: Sequence[str], log: Path, limit: float, environment: dict[str, str]) -> Ending:
    """Run a command line until it ends, or kill it with all its children after `limit` seconds."""
    started = time.monotonic()
    with log.open("wb") as output, log.open("rb") as shown:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            while process.poll() is None and time.monotonic() - started < limit:
                _copy(shown)
                time.sleep(_POLL)
            stopped = process.poll() is None
        finally:  # also when this process is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _copy(shown)
    seconds = time.monotonic() - started
    if not stopped and process.returncode == 0:
        return Ending(DONE, seconds)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if not stopped and process.returncode < 0:
        lines.append(f"ended by signal {-process.returncode}")
    return Ending(STOPPED if stopped else FAILED, seconds, tuple(lines[-_LAST:]))


def _copy(log: BinaryIO) -> None:
    """Copy what a log has got since the last call to the terminal."""
    if text := log.read():
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the log is not
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
