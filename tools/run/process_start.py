"""The first moments of a program, before its heavy imports: made of the standard library alone.

A program that a launcher started is tied to it: where the launcher ends by a signal that it does not pass on, the
kernel sends SIGTERM here. One that a shell started lives on without the shell.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

STOPPED = 143  # exit code of a run that a signal ended, whichever it was
WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LAUNCHERS = {
    "accelerate", "accelerate.commands.launch", "torchrun", "torch.distributed.run", "torch.distributed.launch",
    "tools.sweep", "tools.soak", "tools.kill_test", "tools.compare_processes",
}  # fmt: skip
_PR_SET_PDEATHSIG = 1
_M_ARENA_MAX = -8  # of glibc's malloc.h


def start() -> None:
    """Call it first of all, in a program and not where it is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve the loader's
    _open_streams()
    _few_heaps()
    for number in WATCHED:
        signal.signal(number, _stopped)
    parent = os.getppid()
    if _launcher_above() and ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) == 0 and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)  # it ended before it was tied to


def launched() -> bool:
    """Whether a launcher started this process, and passes on the signals that it gets."""
    return "LOCAL_RANK" in os.environ or _launcher_above()


def parent_words() -> list[str]:
    """The command line of the process that started this one; nothing where it cannot be read."""
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")]
    except OSError:
        return []


class Lasting(io.TextIOWrapper):
    """A stream of words that may lose its reader or its disk: the program goes on without it, and says so once."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, self.fileno())  # what is still in the buffer goes there
        os.close(handle)
        tell(f"{_program()}: WARNING: {self.name} cannot be written ({error.strerror}); the program goes on without it")


def tell(line: str) -> None:
    """A line to file 2, from wherever, as far as anybody reads it."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _few_heaps() -> None:
    """Two heaps for all threads, where the caller has not chosen.

    glibc makes up to eight a core, one for each new thread, and every heap keeps the holes that its threads left: with
    the threads of each pass over the data, training grew by 10 MiB an epoch until all of them were in use.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _launcher_above() -> bool:
    return any(Path(word).name in _LAUNCHERS for word in parent_words()[:4])


def _open_streams() -> None:
    """Files 0 to 2 are there, and words to 1 and 2 never fail: a file that is opened later is none of these."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout, sys.stderr = _lasting(sys.stdout or open(1, "w")), _lasting(sys.stderr or open(2, "w"))  # noqa: SIM115


def _lasting(stream: Any) -> Lasting:
    encoding, errors, buffering = stream.encoding, stream.errors, stream.line_buffering
    return Lasting(stream.detach(), encoding=encoding, errors=errors, line_buffering=buffering)


def _program() -> str:
    return os.path.basename(sys.argv[0])


def _stopped(number: int, frame: FrameType | None) -> None:
    tell(f"{_program()}: stopped by a signal ({signal.Signals(number).name}) while nothing was being trained")
    os._exit(STOPPED)
