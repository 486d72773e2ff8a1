"""Make the next batches in a thread while the current one is used.

An error in the thread is raised where the consumer waits. Leaving the iteration early stops the thread and waits for
its end. On a GPU the thread works on a stream of its own and hands each batch over with an event.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
_POLL_S = 0.1  # seconds after which a blocked thread checks whether it has to stop


class Prefetch(Generic[T]):
    """Iterates over `produce(0)`, `produce(1)`, ... `produce(count - 1)`, at most `depth` ahead.

    Args:
        produce: makes item i; called in the thread, in order.
        count: number of items.
        depth: number of finished items that may wait; at most depth + 2 items are in memory.
        device: where the items live; on CUDA they are made on a separate stream.
        tensors: yields the tensors of an item, for the hand-over between streams.
    """

    def __init__(
        self,
        produce: Callable[[int], T],
        count: int,
        depth: int,
        device: torch.device,
        tensors: Callable[[T], Iterator[torch.Tensor]],
    ) -> None:
        self._produce, self._count, self._device, self._tensors = produce, count, device, tensors
        self._ready: queue.Queue[tuple[T | None, torch.cuda.Event | None, BaseException | None]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._working = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="likeness-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        try:
            for _ in range(self._count):
                item, event, error = self._take()
                if error is not None:
                    raise error
                assert item is not None
                if event is not None:
                    consumer = torch.cuda.current_stream(self._device)
                    consumer.wait_event(event)
                    for tensor in self._tensors(item):
                        tensor.record_stream(consumer)  # keeps its memory while the consumer reads it
                yield item
        finally:
            self.close()

    @contextmanager
    def parked(self) -> Iterator[None]:
        """A context in which the thread makes nothing: it ends the item that it is at, and waits.

        `close` must not be called in it: it would wait for the thread, which waits for the context to end.
        """
        with self._working:
            yield

    def close(self) -> None:
        """Stop the thread and wait for it; safe to call twice, and from any thread but its own."""
        self._stop.set()
        self._thread.join()
        while not self._ready.empty():
            self._ready.get_nowait()

    def _take(self) -> tuple[T | None, torch.cuda.Event | None, BaseException | None]:
        while not self._stop.is_set():
            try:
                return self._ready.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise RuntimeError("the loader was closed while a batch was awaited")

    def _run(self) -> None:
        on_gpu = self._device.type == "cuda"
        stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]  # torch has no types for streams
        try:
            for number in range(self._count):
                if self._stop.is_set():
                    return
                with self._working:
                    with torch.no_grad(), torch.cuda.stream(stream):
                        item = self._produce(number)
                    event = None if stream is None else stream.record_event()
                self._put((item, event, None))
        except BaseException as error:
            self._put((None, None, error))

    def _put(self, entry: tuple[T | None, torch.cuda.Event | None, BaseException | None]) -> None:
        while not self._stop.is_set():
            try:
                return self._ready.put(entry, timeout=_POLL_S)
            except queue.Full:
                continue
