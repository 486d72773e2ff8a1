"""How every benchmark measures: contenders take turns in one process, medians are reported, noise is flagged.

A case compares "ours", the first contender, with named others. The result is the ratio of their medians in one run.
Machines are shared and their speed changes from minute to minute, so numbers of two runs are never compared.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipelines.memory import release_memory

NOISY = 0.25  # the spread of the repeats, (largest - smallest) / median, above which a measurement is flagged
_MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """The options of the command line, for all benchmarks.

    Attributes:
        repeats: the number of runs of each contender.
        threads: the number of threads that a contender may use.
        device: "cpu" or "cuda".
        data: a converted data set to measure on; None for generated images.
        sizes: the numbers of samples, for benchmarks that measure how time grows with the data set.
    """

    repeats: int = 5
    threads: int = 1
    device: str = "cpu"
    data: Path | None = None
    sizes: tuple[int, ...] = (50_000,)


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what is measured, with its sizes.
        unit: the unit of the values. For a unit that ends in "/s" larger is better, for any other smaller is better.
        values: the measurements of each contender; the first contender is ours.
        peak_mib: the memory that a contender needed beyond what was in use before it ran, in MiB.
        facts: further facts that belong to the result.
    """

    name: str
    unit: str
    values: Mapping[str, list[float]]
    peak_mib: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def median(self, contender: str) -> float:
        """Return the median of a contender's measurements."""
        return statistics.median(self.values[contender])

    def spread(self, contender: str) -> float:
        """Return (largest - smallest) / median of a contender's measurements."""
        values = self.values[contender]
        return (max(values) - min(values)) / statistics.median(values)

    def ratio(self, contender: str) -> float:
        """Return how many times better ours is than `contender`."""
        ours, other = self.median(next(iter(self.values))), self.median(contender)
        return ours / other if self.unit.endswith("/s") else other / ours

    def row(self) -> dict[str, Any]:
        """Return the case as JSON."""
        return {
            "case": self.name,
            "unit": self.unit,
            "contenders": {
                name: {
                    "median": round(self.median(name), 4),
                    "spread": round(self.spread(name), 3),
                    "noisy": self.spread(name) > NOISY,
                    "ours_is_better": round(self.ratio(name), 3),
                    **({"peak_mib": round(self.peak_mib[name], 1)} if name in self.peak_mib else {}),
                }
                for name in self.values
            },
            **self.facts,
        }


def take_turns(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call each contender `repeats` times, all of them once in every round, and return what they returned."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            values[name].append(run())
    return values


def milliseconds(function: Callable[[], object], device: str = "cpu", times: int = 1) -> Callable[[], float]:
    """Return a contender that returns how long a call of `function` takes, averaged over `times` calls."""

    def run() -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(times):
            function()
        synchronize(device)
        return 1000 * (time.perf_counter() - started) / times

    return run


def peak_memory(function: Callable[[], object], device: str = "cpu") -> float:
    """Return the MiB that a call needs at its peak beyond what was in use before: resident memory, or the GPU's."""
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before) / _MIB
    release_memory()  # memory that is freed but not returned would be used again, unnoticed
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak of the resident memory
    before = _resident("VmRSS")
    function()
    return (_resident("VmHWM") - before) / _MIB


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was asked; on a CPU, do nothing."""
    if device != "cpu":
        torch.cuda.synchronize()


def load_average() -> float:
    """Return the mean number of busy processes over the last minute."""
    return os.getloadavg()[0]


def _resident(field_name: str) -> int:
    """Return a field of /proc/self/status, in bytes."""
    found = re.search(rf"{field_name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
