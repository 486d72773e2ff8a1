"""How every benchmark measures: contenders take turns in one process, medians count, noise is told.

A case compares "ours", the first contender, with named others. Speed is a ratio of medians of one run: machines are
shared and their speed changes from minute to minute, so numbers of two runs are never compared.
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

NOISY = 0.25  # spread of the repeats, (largest - smallest) / median, above which a measurement is flagged
_MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What the command line asks of every benchmark.

    Attributes:
        repeats: runs of each contender.
        threads: that each may use.
        device: "cpu" or "cuda".
        data: a converted data set to measure on instead of images made for the purpose, or None.
        sizes: numbers of samples, for what is measured over a data set's size.
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
        unit: of the values; a unit that ends in "/s" is better when it is larger, any other when it is smaller.
        values: the repeats of each contender; the first one is ours.
        peak_mib: memory of a contender beyond what was there before it ran, in MiB.
        facts: whatever else a reader needs to know.
    """

    name: str
    unit: str
    values: Mapping[str, list[float]]
    peak_mib: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def median(self, contender: str) -> float:
        return statistics.median(self.values[contender])

    def spread(self, contender: str) -> float:
        """(largest - smallest) / median of the repeats."""
        values = self.values[contender]
        return (max(values) - min(values)) / statistics.median(values)

    def ratio(self, contender: str) -> float:
        """How many times better ours is than `contender`."""
        ours, other = self.median(next(iter(self.values))), self.median(contender)
        return ours / other if self.unit.endswith("/s") else other / ours

    def row(self) -> dict[str, Any]:
        """The case as JSON."""
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
    """What each contender returns, `repeats` times, one after the other in every round."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            values[name].append(run())
    return values


def milliseconds(function: Callable[[], object], device: str = "cpu", times: int = 1) -> Callable[[], float]:
    """A contender that returns how long one call of `function` takes, averaged over `times` calls."""

    def run() -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(times):
            function()
        synchronize(device)
        return 1000 * (time.perf_counter() - started) / times

    return run


def peak_memory(function: Callable[[], object], device: str = "cpu") -> float:
    """MiB that a call of `function` needs at its peak beyond what was held before: resident memory, or the GPU's."""
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before) / _MIB
    release_memory()  # what is freed but kept would hide as much of what is needed
    Path("/proc/self/clear_refs").write_text("5")  # the kernel starts the process's peak anew
    before = _resident("VmRSS")
    function()
    return (_resident("VmHWM") - before) / _MIB


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def load_average() -> float:
    return os.getloadavg()[0]


def _resident(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
