"""What the command lines of all programs share: a parser with one-line errors and the guarded `main`.

This file imports no torch, so that `--help` and a wrong option are answered at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.printable import printable

if TYPE_CHECKING:
    from models.options import Option


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


def add_option(group: argparse._ActionsContainer, item: Option, help: str, default: Any = None) -> None:
    """Add an option that is declared as a dataclass field to a parser, or to a group of one.

    Args:
        help: the whole help text; `item.help` is a part of it.
        default: what the parsed namespace holds where the option is not given.
    """
    if item.kind is bool:
        reads: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    elif item.kind is tuple:
        reads = {"type": _list_of(item.element), "metavar": item.metavar or "A,B,..."}
    else:
        reads = {"type": _reader(item.kind), "metavar": item.metavar or _METAVARS.get(item.kind, "TEXT")}
    group.add_argument(item.flag, default=default, help=help.replace("%", "%%"), **reads)
    if item.formerly:
        flag, hidden = f"--{item.formerly.replace('_', '-')}", argparse.SUPPRESS
        group.add_argument(flag, dest=item.name, default=hidden, help=hidden, **reads)
    if item.shortcut:
        flag, value, text = item.shortcut
        group.add_argument(flag, dest=item.name, action="store_const", const=value, default=default, help=text)


_METAVARS = {int: "N", float: "X"}
_LARGEST = 3.4e38  # the largest number of float32, in which everything is computed


def _reader(kind: type) -> Callable[[str], Any]:
    return _number if kind is float else kind


def _number(text: str) -> float:
    number = float(text)
    if not abs(number) < _LARGEST:
        raise ValueError(text)
    return number


_number.__name__ = "finite float"  # what argparse calls it


def _list_of(element: type) -> Callable[[str], tuple[Any, ...]]:
    reader = _reader(element)

    def read(text: str) -> tuple[Any, ...]:
        return tuple(reader(word) for word in text.split(","))

    read.__name__ = f"list of {reader.__name__}"
    return read


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
