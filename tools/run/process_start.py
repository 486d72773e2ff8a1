"""What train.py does before its heavy imports: signals, output streams, the allocator, and the tie to its launcher.

Importing torch takes seconds, during which a signal would kill the process without a word or end it with a traceback.
So this module imports nothing but the standard library, and `start` is called before anything else is imported.
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

STOPPED = 143  # exit code of a run that any of the watched signals ended
WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # SIGUSR1 is the warning that Slurm can send before a limit
#: Programs that start train.py and pass signals on to it.
_LAUNCHERS = {
    "accelerate",
    "accelerate.commands.launch",
    "torchrun",
    "torch.distributed.run",
    "torch.distributed.launch",
    "tools.sweep",
    "tools.soak",
    "tools.kill_test",
    "tools.compare_processes",
}
_PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
_M_ARENA_MAX = -8  # of glibc's <malloc.h>


def start() -> None:
    """Prepare this process. Call it first in a program, and never in a module that others import.

    - Until the run installs its own handlers, a watched signal ends the process with one line and exit code 143.
    - Writing to stdout and stderr never fails (see `LossyStream`).
    - glibc uses two heaps for all threads (see `_limit_heaps`).
    - If a launcher started this process, it ends when the launcher does: should the launcher be killed by a signal that
      it cannot pass on, the kernel sends SIGTERM here. A process that a shell started outlives the shell.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning OpenMP threads starve the loader's
    _open_streams()
    _limit_heaps()
    for number in WATCHED:
        signal.signal(number, _exit_on_signal)
    if _parent_is_launcher():
        _end_with_parent()


def launched() -> bool:
    """Return whether a launcher started this process, which also passes on the signals that it gets."""
    return "LOCAL_RANK" in os.environ or _parent_is_launcher()


def parent_command() -> list[str]:
    """Return the command line of the process that started this one; empty if it cannot be read."""
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")]
    except OSError:
        return []


class LossyStream(io.TextIOWrapper):
    """A text stream that discards its output once it cannot be written, instead of raising, and says so once.

    A reader that went away (`train.py | head`) or a full disk under a redirected log must not end a run.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._discard_from_now_on(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._discard_from_now_on(error)

    def _discard_from_now_on(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())  # the rest of the buffer goes there too
        os.close(null)
        tell(f"{_program()}: WARNING: {self.name} cannot be written ({error.strerror}); the program goes on without it")


def tell(line: str) -> None:
    """Write a line to file descriptor 2, from any thread or signal handler; failures are ignored."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _limit_heaps() -> None:
    """Let glibc use two heaps for all threads, unless MALLOC_ARENA_MAX says otherwise.

    By default glibc creates a heap ("arena") for each new thread, up to eight per core, and each heap keeps the gaps
    that its threads left behind. Every pass over the data starts new threads, so that training grew by 10 MiB an epoch
    until all heaps existed.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no mallopt
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _parent_is_launcher() -> bool:
    return any(Path(word).name in _LAUNCHERS for word in parent_command()[:4])


def _end_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this process when its parent ends."""
    parent = os.getppid()
    requested = ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) == 0
    if requested and os.getppid() != parent:  # it ended before the request, so that no signal would come
        os.kill(os.getpid(), signal.SIGTERM)


def _open_streams() -> None:
    """Make sure that file descriptors 0 to 2 are open, and that writing to 1 and 2 never fails.

    A process may be started with some of them closed. The next file that it opened, perhaps a checkpoint, would get the
    free number, and whatever is printed would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Python sets a stream to None if its descriptor was closed when the interpreter started.
    sys.stdout = _lossy(sys.stdout or open(1, "w"))  # noqa: SIM115 (open until the process ends)
    sys.stderr = _lossy(sys.stderr or open(2, "w"))  # noqa: SIM115 (open until the process ends)


def _lossy(stream: Any) -> LossyStream:
    encoding, errors, buffering = stream.encoding, stream.errors, stream.line_buffering
    return LossyStream(stream.detach(), encoding=encoding, errors=errors, line_buffering=buffering)


def _program() -> str:
    return os.path.basename(sys.argv[0])


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    tell(f"{_program()}: stopped by a signal ({signal.Signals(number).name}) while nothing was being trained")
    os._exit(STOPPED)
