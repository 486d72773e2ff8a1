"""CLIM's selection of partners: 10 nearest neighbours, 1,000 clusters and the centre-wise rule, on Gaussians in 128-d.

Ours beside faiss (flat index, k-means) and scikit-learn (brute force, Lloyd's algorithm), with the same number of
k-means iterations, on unit vectors; the centre-wise rule is ours for all. Above 50,000 samples only ours is measured,
and above 100,000 only once; `search.py` compares the expensive steps there.

The peak memory is that of the process that needs most. CPU seconds are summed over all threads and processes; where
they are much fewer than seconds times threads, the machine was busy with other things.

    python -m tools.benchmark selection --sizes 50000,100000,1000000
    torchrun --nproc_per_node 2 -m tools.benchmark selection --sizes 1000000 --threads 1      ours with two processes

N samples, M samples of this process, D dimensions, k neighbours.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.distributed import all_gather, world
from models.methods.clim_selection import select
from models.neighbors import center_wise
from models.search.sharded_features import LocalFeatures
from tools.benchmarks.baselines import Baseline, baselines
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, take_turns

NEIGHBORS, CLUSTERS, ITERATIONS = 10, 1000, 10
DIMENSIONS, GROUPS, NOISE = 128, 300, 1.5  # with fewer groups than clusters k-means converges more slowly
COMPARED = 50_000  # the largest number of samples with which the baselines make a complete selection
REPEATED = 100_000  # the largest number of samples with which a selection is repeated
_CHUNK = 4096  # samples that are drawn with one seed


def cases(settings: Settings) -> Iterator[Case]:
    before: Case | None = None
    for number in settings.sizes:
        local = mixture(number, settings.device)
        alone = world()[1] == 1 and settings.device == "cpu" and number <= COMPARED
        case = selection(local, settings, baselines(local.features_MD, settings.threads) if alone else [], before)
        yield case
        before = case


def selection(local: LocalFeatures, settings: Settings, others: list[Baseline], before: Case | None) -> Case:
    """Measure the seconds of a selection by ours and by the baselines.

    Args:
        before: the case of the size that was measured before, for the growth of the time; None for the first.
    """
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: select(local, "paper", 0, NEIGHBORS, CLUSTERS, ITERATIONS)
    }
    contenders |= {baseline.name: partial(select_with, baseline, local.features_MD) for baseline in others}
    used = _cpu_seconds()
    values, peaks = measured(contenders, settings, settings.repeats if local.total <= REPEATED else 0)
    facts: dict[str, object] = {
        "samples": local.total,
        "processes": world()[1],
        "features_mib": round(local.features_MD.nbytes / 2**20, 1),
    }
    if not others:
        runs = 1 + (settings.repeats if local.total <= REPEATED else 0)
        facts["cpu_seconds"] = round((_cpu_seconds() - used) / runs, 2)
    if before is not None:
        ratio = statistics.median(values["ours"]) / before.median("ours")
        size = local.total / int(before.facts["samples"])
        facts["growth"] = f"{ratio:.2f} times the time for {size:g} times the samples (N^{math.log(ratio, size):.2f})"
    return Case(f"{local.total:,} samples, {DIMENSIONS}-d", "seconds", values, peaks, facts)


def select_with(baseline: Baseline, features_ND: Tensor) -> Tensor:
    """Make a selection with a baseline's search and k-means."""
    neighbors_Nk = baseline.search(features_ND.numpy(), NEIGHBORS + 1)[:, 1:]  # the first one is the sample itself
    return center_wise(features_ND, neighbors_Nk, *baseline.cluster(CLUSTERS, ITERATIONS))


def mixture(number: int, device: str) -> LocalFeatures:
    """Return this process's share of the mixture, every W-th chunk; the mixture is the same for all W processes."""
    centre = torch.randn(GROUPS, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    rank, processes = world()
    numbers, rows = [], []
    for chunk in range(rank, -(-number // _CHUNK), processes):
        generator = torch.Generator().manual_seed(1 + chunk)
        own = torch.arange(chunk * _CHUNK, min(number, (chunk + 1) * _CHUNK))
        group = torch.randint(GROUPS, (len(own),), generator=generator)
        noise = NOISE * torch.randn(len(own), DIMENSIONS, generator=generator)
        numbers.append(own)
        rows.append(normalize(centre[group] + noise))
    return LocalFeatures(torch.cat(numbers).to(device), torch.cat(rows).to(device), number)


def measured(
    contenders: Mapping[str, Callable[[], object]], settings: Settings, repeats: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the seconds and the peak MiB of each contender.

    The memory is measured in a run of its own, unless `repeats` is 0: then the seconds are those of this one run.
    """
    timed = {name: _seconds(milliseconds(run, settings.device)) for name, run in contenders.items()}
    first: dict[str, float] = {}
    peaks = {name: _largest(peak_memory(_kept(first, name, run), settings.device)) for name, run in timed.items()}
    return take_turns(timed, repeats) if repeats else {name: [first[name]] for name in first}, peaks


def _cpu_seconds() -> float:
    """Return the CPU seconds that all processes together have used so far."""
    return float(all_gather(torch.tensor(time.process_time(), dtype=torch.float64)).sum())


def _seconds(run: Callable[[], float]) -> Callable[[], float]:
    """Return a contender in seconds, as the slowest process measures them, from one in milliseconds."""
    return lambda: _largest(run() / 1000)


def _largest(value: float) -> float:
    """Return the largest of all processes' values."""
    return float(all_gather(torch.tensor(value, dtype=torch.float64)).max())


def _kept(values: dict[str, float], name: str, run: Callable[[], float]) -> Callable[[], None]:
    """Return a function that calls `run` and stores its result in `values`."""

    def run_and_keep() -> None:
        values[name] = run()

    return run_and_keep
