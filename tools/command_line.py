"""What the command lines of all programs share: a parser with one-line errors and the guarded `main`.

This file imports no torch, so that `--help` and a wrong option are answered at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.printable import printable


class Failure(Exception):
    """An error that the user can fix. It is printed as one line, without a traceback.

    Args:
        message: what is wrong, where, and how to fix it.
        code: the exit code of the program.
    """

    def __init__(self, message: str = "", code: int = 2) -> None:
        super().__init__(message)
        self.code = code


#: Exceptions whose message tells the user what to change: options, data, files, a missing package, diverging weights.
EXPECTED_ERRORS = (Failure, ValueError, OSError, ImportError, FloatingPointError)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser (and its sub-parsers) that raises a one-line `Failure` instead of printing its usage."""

    def error(self, message: str) -> Any:
        raise Failure(message)


def own_and_passed_on(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Split a command line at `--` into the program's own options and those that it passes on to train.py.

    Args:
        arguments: the command line; None takes the one that this process was started with.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def guarded_main(program: str, run: Callable[[], int | None]) -> int:
    """Run a program and return its exit code. Every program's `main` calls this.

    An expected error becomes one line on stderr. Any other exception keeps its traceback and gives exit code 1. If this
    process is one of several, it exits immediately, because the others are waiting for it.

    Args:
        program: the name of the program as the user types it; the error line starts with it.
        run: does the work and returns an exit code; None means 0.
    """
    try:
        return exit_process(run() or 0)
    except EXPECTED_ERRORS as error:
        message, rank = printable(str(error)), int(os.environ.get("RANK", "0"))
        prefix = f"process {rank}: " if rank and not message.startswith("process ") else ""
        print(f"{program}: {prefix}{message}", file=sys.stderr)
        return exit_process(error.code if isinstance(error, Failure) else 2)
    except Exception:
        traceback.print_exc()
        return exit_process(1)


def exit_process(code: int) -> int:
    """Exit immediately if this process is one of several; otherwise return the exit code to the caller.

    Call it while the model is still referenced. Freeing the model frees gloo's process group, whose destructor holds
    the GIL while it waits for a thread that may itself be waiting for the GIL. With torch 2.13 a run was seen to hang
    there forever.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
