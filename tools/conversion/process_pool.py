"""Work in other processes, answered in order, without ever waiting for a process that is gone.

Each process has a pipe of its own, and a thread here waits for its answer. A process that ends, however it ends, closes
its end of the pipe, which wakes that thread; there is no queue and no lock that it could take along. (The standard
library's pool waits for ever where one of its processes is killed while it starts another.)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import connection
from queue import SimpleQueue
from typing import Any, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Pipes = SimpleQueue["connection.Connection[Any, Any]"]


class WorkerError(RuntimeError):
    """A worker process ended without an answer."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process was killed (out of memory?); try fewer with --workers, or reduce large images first"
        )


def in_order(work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int) -> Iterator[Answer]:
    """What `work` makes of each task, in the order of the tasks; one worker is this process itself.

    Args:
        work: from the top of a module that is quick to import, as every process imports it.

    Raises:
        WorkerError: a worker was killed, for instance by the system for want of memory.
    """
    if workers == 1:
        yield from map(work, tasks)
        return
    left = iter(tasks)
    threads = ThreadPoolExecutor(workers)
    try:
        with _started(work, workers) as idle:

            def ask(task: Task) -> Answer:
                pipe = idle.get()
                try:
                    pipe.send(task)
                    answer: Answer = pipe.recv()
                except (OSError, EOFError):
                    raise WorkerError from None
                finally:
                    idle.put(pipe)  # as many pipes as threads, so that none waits for one
                return answer

            # Only a few tasks ahead: the answers of the others would fill the memory.
            waiting = deque(threads.submit(ask, task) for task in islice(left, 2 * workers + 2))
            while waiting:
                answer = waiting.popleft().result()
                waiting.extend(threads.submit(ask, task) for task in islice(left, 1))
                yield answer
    finally:
        threads.shutdown(cancel_futures=True)  # the processes are gone, so nobody waits for them


@contextmanager
def _started(work: Callable[[Any], Any], number: int) -> Iterator[Pipes]:
    """The pipes of so many processes, which end with the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    pipes: Pipes = SimpleQueue()
    processes = []
    try:
        with _undisturbed():
            for _ in range(number):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(work, theirs), daemon=True)
                try:
                    process.start()
                except (ConnectionError, EOFError):  # killed before it was told what to do
                    raise WorkerError from None
                processes.append(process)
                theirs.close()  # else the end of the process would not close it
                pipes.put(ours)
        yield pipes
    finally:
        for process in processes:
            process.kill()  # it has nothing to lose
        for process in processes:
            process.join()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds SIGTERM and Ctrl-C back: a process that is left while it starts complains that it was told nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _serve(work: Callable[[Any], Any], pipe: connection.Connection[Any, Any]) -> None:
    """What a worker process does."""
    # Ctrl-C goes to every process of the terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError, EOFError):  # the program ended
        while True:
            pipe.send(work(pipe.recv()))


def _end_with_parent() -> None:
    # In the middle of a task too, which may take minutes.
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
