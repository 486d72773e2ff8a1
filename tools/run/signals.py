"""SIGTERM, SIGINT and SIGUSR1 ask a run to stop after its current step; a second signal ends it immediately.

Python calls its own signal handlers only between two instructions of the main thread. While that thread waits inside a
library for a device, a disk or another process, a second Ctrl-C would do nothing. So the signals are read from a pipe
(`signal.set_wakeup_fd`) by a thread of their own, which can end the process at any time.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from models.distributed import world
from tools.run.process_start import WATCHED, launched, tell

STOPPED_AT_ONCE = 137  # exit code after a second signal; as after SIGKILL, steps since the last checkpoint are lost
#: A scheduler sends a signal to all processes, and a launcher passes on its own: copies within this time count as one.
_COPIES_S = 2.0


class StopRequest:
    """A context manager within which the first signal only sets `received`, and a second one ends the process."""

    def __init__(self) -> None:
        self.received = False
        self._handlers_before: dict[int, Any] = {}

    def _read_signals(self) -> None:
        """Read signal numbers from the pipe until it is closed. Runs in a thread."""
        first = 0.0
        copies_s = _COPIES_S if launched() else 0.0
        while number := os.read(self._reading, 1):
            if number[0] not in WATCHED:
                continue
            if not self.received:
                self.received, first = True, time.monotonic()
            elif time.monotonic() - first >= copies_s:
                name = signal.Signals(number[0]).name
                tell(f"train.py: stopped at once by a second signal ({name}); go on with --resume")
                os._exit(STOPPED_AT_ONCE)

    def __enter__(self) -> StopRequest:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._read_signals, name="likeness-signals", daemon=True)
        self._thread.start()
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        # Signal numbers are written to the pipe only for signals that have a Python handler.
        self._handlers_before = {number: signal.signal(number, lambda *_: None) for number in WATCHED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writing)  # the thread reads the end of the pipe and returns
        self._thread.join()
        os.close(self._reading)


class Stopped(Exception):
    """Raised where a signal ends the run; the run then saves a checkpoint and exits."""


class AgreedStop:
    """Decides, for all processes of a run together, whether to stop. All of them stop after the same step.

    A single process stops after the step in which its signal came. Several processes add up their requests after every
    step with an all-reduce that nobody waits for. Its sum is read one step later, when it has long arrived, so that no
    step becomes slower and the run ends one step later. The all-reduce uses gloo, between the hosts, even if the run is
    on GPUs: with NCCL, reading the sum would make the host wait for its device.

    Args:
        stop: the signals of this process.
        timeout: the seconds without an answer of another process after which `asked` raises.
    """

    def __init__(self, stop: StopRequest, timeout: float) -> None:
        self._stop = stop
        self._pending: dist.Work | None = None
        self._several = world()[1] > 1
        if self._several:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    def asked(self) -> bool:
        """Return whether to stop after this step. Every process must call it after every step.

        Raises:
            RuntimeError: another process is gone or silent.
        """
        if not self._several:
            return self._stop.received
        if self.settle():
            return True
        self._requests = torch.tensor(float(self._stop.received))
        self._pending = dist.all_reduce(self._requests, group=self._group, async_op=True)
        return False

    def check(self) -> None:
        """Stop in the middle of work that a resumed run repeats, such as an evaluation. Every process must call it.

        Raises:
            Stopped: on every process, if any was asked to stop.
        """
        if self.asked():
            raise Stopped

    def settle(self) -> bool:
        """Wait for the pending all-reduce, and return whether any process asked to stop.

        Call it before the processes exit, so that no communication is pending when they do.
        """
        if self._pending is None:
            return False
        self._pending.wait()
        self._pending = None
        return bool(self._requests > 0)
