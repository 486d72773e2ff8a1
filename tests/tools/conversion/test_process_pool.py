"""Work in other processes comes back in order, and a process that is gone is never waited for."""

from __future__ import annotations

import copy
import multiprocessing
import multiprocessing.popen_forkserver
import operator
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tools.conversion.process_pool import WorkerError, in_order


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """Ends a test that hangs, too: for each of these, that is what could go wrong."""

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 3])
def test_answers_come_in_the_order_of_the_tasks(workers: int) -> None:
    assert list(in_order(operator.neg, range(50), workers)) == [-number for number in range(50)]
    assert list(in_order(operator.neg, [], workers)) == []


def test_tasks_and_answers_larger_than_a_pipe() -> None:
    tasks = [bytes([number]) * (4 << 20) for number in range(8)]
    assert list(in_order(copy.copy, tasks, 2)) == tasks


def test_who_stops_asking_leaves_no_process() -> None:
    answers = in_order(time.sleep, [0, 0, *[60] * 20], 2)
    next(answers)
    assert len(multiprocessing.active_children()) == 2
    answers.close()


def kill(process: int | None) -> None:
    assert process is not None
    os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("busy", [True, False])
def test_a_worker_is_killed(busy: bool) -> None:
    def tasks() -> Iterator[float]:
        yield 0
        first, _ = multiprocessing.active_children()
        kill(first.pid)
        if not busy:
            first.join()
        yield from [0.5] * 20

    with pytest.raises(WorkerError, match="a worker process was killed"):
        list(in_order(time.sleep, tasks(), 2))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_is_killed_while_others_start(victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, or the very one that has just started, before it is known."""
    started: list[int] = []
    launch = multiprocessing.popen_forkserver.Popen._launch

    def killing(self: Any, process: Any) -> None:
        launch(self, process)
        started.append(self.pid)
        if len(started) == 2:
            kill(started[victim])
            time.sleep(0.2)

    monkeypatch.setattr(multiprocessing.popen_forkserver.Popen, "_launch", killing)
    with pytest.raises(WorkerError):
        list(in_order(time.sleep, [0.1] * 20, 3))


@pytest.mark.parametrize("error", [BrokenPipeError, EOFError])  # of the worker, of what forks the workers
def test_a_worker_is_killed_before_it_is_told_what_to_do(error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, before = multiprocessing.popen_forkserver.Popen._launch, []

    def killing(self: Any, process: Any) -> None:
        if before:
            raise error
        before.append(launch(self, process))

    monkeypatch.setattr(multiprocessing.popen_forkserver.Popen, "_launch", killing)
    with pytest.raises(WorkerError):
        list(in_order(time.sleep, [0.1] * 20, 2))
