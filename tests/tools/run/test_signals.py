"""Signals: the first one asks, the second one ends the process even inside a call that does not return; agreement."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import gloo, runs
from tools.run.signals import STOPPED_AT_ONCE, AgreedStop, StopRequest


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_the_first_signal_only_asks(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    handles = len(os.listdir("/proc/self/fd"))
    with StopRequest() as stop:
        assert not stop.received
        os.kill(os.getpid(), number)
        wait_for(lambda: stop.received)
    assert {n: signal.getsignal(n) for n in before} == before
    assert signal.set_wakeup_fd(-1) == -1 and len(os.listdir("/proc/self/fd")) == handles


DEAF = """
import ctypes
from tools.run.signals import StopRequest
with StopRequest():
    print("ready", flush=True)
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever, and no handler of Python's is called
"""


@pytest.mark.processes
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGUSR1])
def test_a_second_one_ends_a_process_that_hears_nothing(second):
    child = [sys.executable, "-c", DEAF]
    environment = {k: v for k, v in runs.environment().items() if k != "LOCAL_RANK"}
    with subprocess.Popen(
        child, cwd=runs.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        started = time.monotonic()
        process.send_signal(second)
        _, error = process.communicate(timeout=20)
        assert process.returncode == STOPPED_AT_ONCE == 137 and time.monotonic() - started < 5
    assert error == f"train.py: stopped at once by a second signal ({second.name}); go on with --resume\n"


def test_under_a_launcher_copies_of_a_signal_count_as_one(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: stop.received)
        os.kill(os.getpid(), signal.SIGTERM)  # this process would be gone
        time.sleep(0.1)
    assert stop.received


class Asked:
    """A process that is asked to stop in its step `step`."""

    def __init__(self, step):
        self.step, self.now = step, 0

    @property
    def received(self):
        return self.now >= self.step


def last_steps(step_of_rank):
    import torch.distributed as dist

    rank = dist.get_rank() if dist.is_initialized() else 0
    stop = Asked(step_of_rank[rank])
    agreed = AgreedStop(stop, 30)
    for stop.now in range(1, 20):
        if agreed.asked():
            return stop.now
    return agreed.settle()


CASES = {"the second one": ([99, 5], 6), "both": ([5, 5], 6), "at the end": ([19, 99], True), "none": ([99, 99], False)}


def every_case(cases):
    return [last_steps(asked) for asked in cases]


@pytest.mark.processes
def test_all_processes_stop_after_the_same_step():
    """One step after the signal; a process alone after its own."""
    assert last_steps([5]) == 5 and last_steps([99]) is False
    asked, expected = zip(*CASES.values(), strict=True)
    assert gloo.run(every_case, 2, asked) == [list(expected)] * 2
