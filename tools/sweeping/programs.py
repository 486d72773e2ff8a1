"""Runs train.py and eval.py as child processes: their end is waited for, signals and a deadline are passed on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.command_line import Failure
from tools.run.process_start import STOPPED

ROOT = Path(__file__).resolve().parents[2]
_LOOK = 2.0  # seconds between two looks at a program that is waited for


def call(
    command: Sequence[str],
    seconds: float = float("inf"),
    look: Callable[[], object] = lambda: None,
) -> bool:
    """Run a program of the project to its end; a signal is passed on to it.

    Args:
        seconds: after which it is asked to stop with a checkpoint.
        look: called every few seconds.

    Returns:
        Whether it came to its end; False if it was stopped after `seconds`.

    Raises:
        Failure: the program failed.
    """
    stop_at, asked = time.monotonic() + seconds, False
    process = subprocess.Popen([sys.executable, str(ROOT / command[0]), *command[1:]])
    try:
        while True:
            try:
                code = process.wait(min(_LOOK, max(0.01, stop_at - time.monotonic()) if not asked else _LOOK))
                break
            except subprocess.TimeoutExpired:
                look()
                if not asked and time.monotonic() >= stop_at:
                    process.terminate()
                    asked = True
    except BaseException:  # raised by a signal: the program must have time to write its checkpoint
        process.terminate()
        process.wait()
        raise
    if asked and code == STOPPED:
        return False
    if code:
        raise Failure(f"{command[0]} failed; call this again to go on: {' '.join(command)}")
    return True
