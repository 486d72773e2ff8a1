"""CLIM's selection: 10 nearest neighbours, 1,000 clusters, the centre-wise rule, for a mixture of Gaussians in 128-d.

Beside it faiss (flat index, k-means) and scikit-learn (brute force, Lloyd) with as many iterations of k-means, on unit
vectors; the rule is ours for all. Above 50,000 samples ours does it alone, once where it takes minutes; `search.py`
compares its parts there. The peak is that of the process that needs most. CPU seconds, of all threads and processes,
tell how busy the machine was with other things.

    python -m tools.benchmark selection --sizes 50000,100000,1000000
    torchrun --nproc_per_node 2 -m tools.benchmark selection --sizes 1000000 --threads 1      ours by two processes

N samples, M of this process, D dimensions.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

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
DIMENSIONS, GROUPS, NOISE = 128, 300, 1.5  # fewer groups than clusters: k-means takes more iterations to settle
COMPARED = 50_000  # samples up to which the others do the whole selection
REPEATED = 100_000  # samples up to which a selection is made more than once
_CHUNK = 4096  # samples that are drawn together


def cases(settings: Settings) -> Iterator[Case]:
    before: Case | None = None
    for number in settings.sizes:
        local = mixture(number, settings.device)
        alone = world()[1] == 1 and settings.device == "cpu" and number <= COMPARED
        case = selection(local, settings, baselines(local.features_MD, settings.threads) if alone else [], before)
        yield case
        before = case


def selection(local: LocalFeatures, settings: Settings, others: list[Baseline], before: Case | None) -> Case:
    """Seconds of a selection, by ours and by others; `before` is the case of the size that ran last."""
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: select(local, "paper", 0, NEIGHBORS, CLUSTERS, ITERATIONS)
    }
    contenders |= {baseline.name: lambda baseline=baseline: by(baseline, local.features_MD) for baseline in others}  # type: ignore[misc]
    used = _processor_seconds()
    values, peaks = measured(contenders, settings, settings.repeats if local.total <= REPEATED else 0)
    facts: dict[str, object] = {
        "samples": local.total, "processes": world()[1], "features_mib": round(local.features_MD.nbytes / 2**20, 1),
    }  # fmt: skip
    if not others:
        runs = 1 + (settings.repeats if local.total <= REPEATED else 0)
        facts["cpu_seconds"] = round((_processor_seconds() - used) / runs, 2)
    if before is not None:
        ratio = statistics.median(values["ours"]) / before.median("ours")
        size = local.total / int(before.facts["samples"])
        facts["growth"] = f"{ratio:.2f} times the time for {size:g} times the samples (N^{math.log(ratio, size):.2f})"
    return Case(f"{local.total:,} samples, {DIMENSIONS}-d", "seconds", values, peaks, facts)


def by(baseline: Baseline, features_ND: Tensor) -> Tensor:
    """A selection with another's search and k-means."""
    neighbors_Nk = baseline.search(features_ND.numpy(), NEIGHBORS + 1)[:, 1:]  # the first one is the sample itself
    return center_wise(features_ND, neighbors_Nk, *baseline.cluster(CLUSTERS, ITERATIONS))


def mixture(number: int, device: str) -> LocalFeatures:
    """This process's part of a mixture that is the same for any number of processes: every W-th chunk."""
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
    """Seconds and MiB of each; without repeats those of the one run whose memory is watched."""
    timed = {name: _seconds(milliseconds(run, settings.device)) for name, run in contenders.items()}
    first: dict[str, float] = {}
    peaks = {name: _largest(peak_memory(_keep(first, name, run), settings.device)) for name, run in timed.items()}
    return take_turns(timed, repeats) if repeats else {name: [first[name]] for name in first}, peaks


def _processor_seconds() -> float:
    """That all processes have used so far."""
    return float(all_gather(torch.tensor(time.process_time(), dtype=torch.float64)).sum())


def _seconds(run: Callable[[], float]) -> Callable[[], float]:
    """A contender in seconds: of the slowest process."""
    return lambda: _largest(run() / 1000)


def _largest(value: float) -> float:
    """The largest of all processes' values."""
    return float(all_gather(torch.tensor(value, dtype=torch.float64)).max())


def _keep(values: dict[str, float], name: str, run: Callable[[], float]) -> Callable[[], None]:
    """`run`, which leaves what it returns in `values`."""

    def keep() -> None:
        values[name] = run()

    return keep
