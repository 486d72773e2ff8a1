"""Measures how fast a training loop runs, and what share of its time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Throughput:
    """Counts samples and waiting time between two readings, and times the first step."""

    def __init__(self) -> None:
        self._first_step_s: float | None = None
        self._first_step_reported = False
        self.restart()

    def restart(self) -> None:
        """Start a new window of measurement."""
        self._start, self._waited, self._samples = time.perf_counter(), 0.0, 0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the same batches, and count the time until each one arrives as waiting."""
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
        """Count samples that have been trained on."""
        if self._first_step_s is None:
            self._first_step_s = time.perf_counter() - self._start
        self._samples += samples

    def read(self) -> dict[str, float]:
        """Return the samples per second and the share of waiting since the last reading, and start a new window.

        The first reading also holds the duration of the first step, most of which may be compilation.
        """
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rates = {"samples_per_s": round(self._samples / seconds, 2), "wait_share": round(self._waited / seconds, 4)}
        if self._first_step_s is not None and not self._first_step_reported:
            rates["first_step_s"] = round(self._first_step_s, 2)
            self._first_step_reported = True
        self.restart()
        return rates
