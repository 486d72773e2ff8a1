"""SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) ask a run to stop after its step; a second one stops it at once.

Signals are read from a pipe by a thread: a second one then works too while the main thread waits inside a library for
a device, a disk or another process, where Python's own handlers are not called.
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

STOPPED_AT_ONCE = 137  # of one that a second signal ended, as after SIGKILL: steps since the last checkpoint are lost
_ONE_REQUEST_S = 2.0  # under a launcher, which passes on what the scheduler has sent already, copies count as one


class StopRequest:
    """A context in which the first signal only sets `received`."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def _watch(self) -> None:
        first = 0.0
        merged = _ONE_REQUEST_S if launched() else 0.0
        while number := os.read(self._reading, 1):
            if number[0] not in WATCHED:
                continue
            if not self.received:
                self.received, first = True, time.monotonic()
            elif time.monotonic() - first >= merged:
                name = signal.Signals(number[0]).name
                tell(f"train.py: stopped at once by a second signal ({name}); go on with --resume")
                os._exit(STOPPED_AT_ONCE)

    def __enter__(self) -> StopRequest:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._watch, name="likeness-signals", daemon=True)
        self._thread.start()
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in WATCHED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writing)  # the thread reads the end
        self._thread.join()
        os.close(self._reading)


class Stopped(Exception):
    """A signal ends the run here: what it has trained is to be kept."""


class AgreedStop:
    """Whether any process was asked to stop: all of them learn it after the same step.

    Alone, a process stops after the step in which the signal came. Of several, each passes its answer on after every
    step and reads the sum one step later, when it has long arrived: no step waits, and the run ends one step later.
    On a GPU the answers travel between the hosts, so that no host waits for its device.

    Args:
        stop: this process's own signals.
        timeout: seconds of silence of another process after which `asked` raises.
    """

    def __init__(self, stop: StopRequest, timeout: float) -> None:
        self._stop = stop
        self._work: dist.Work | None = None
        self._several = world()[1] > 1
        if self._several:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    def asked(self) -> bool:
        """Call it after every step, on every process.

        Raises:
            RuntimeError: another process is gone.
        """
        if not self._several:
            return self._stop.received
        if self.settle():
            return True
        self._answer = torch.tensor(float(self._stop.received))
        self._work = dist.all_reduce(self._answer, group=self._group, async_op=True)
        return False

    def check(self) -> None:
        """`asked` in the middle of something that the resumed run does anew.

        Raises:
            Stopped: on every process.
        """
        if self.asked():
            raise Stopped

    def settle(self) -> bool:
        """Waits for the answers that are under way, so that none is left when the processes part; what they were."""
        if self._work is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._answer > 0)
