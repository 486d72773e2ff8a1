"""How fast a loop goes, and how much of its time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Throughput:
    """Counts samples and waiting between two readings, and how long the first step of all took."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._told = False
        self.restart()

    def restart(self) -> None:
        """Starts a new window."""
        self._start, self._waited, self._samples = time.perf_counter(), 0.0, 0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time until each one comes counts as waiting."""
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            yield batch

    def add(self, samples: int) -> None:
        """Counts finished samples."""
        if self._first is None:
            self._first = time.perf_counter() - self._start
        self._samples += samples

    def read(self) -> dict[str, float]:
        """Samples per second and the share of the time spent waiting, since the last reading.

        The first reading also tells the seconds of the first step, which hold the time that compiling took.
        """
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rates = {"samples_per_s": round(self._samples / seconds, 2), "wait_share": round(self._waited / seconds, 4)}
        if self._first is not None and not self._told:
            rates["first_step_s"] = round(self._first, 2)
            self._told = True
        self.restart()
        return rates
