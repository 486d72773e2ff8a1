"""The two expensive steps of CLIM's selection, each alone: the neighbours of 20,000 samples among all, and k-means.

Ours beside faiss and scikit-learn, on the mixture of `selection.py`. Above 100,000 samples each contender runs once.

    python -m tools.benchmark search --sizes 100000,1000000

N samples, Q queries, D dimensions, P samples of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from models.search.kmeans import lloyd
from models.search.nearest import CHUNK, Nearest
from tools.benchmarks.baselines import baselines
from tools.benchmarks.measure import Case, Settings
from tools.benchmarks.selection import CLUSTERS, ITERATIONS, NEIGHBORS, REPEATED, measured, mixture

QUERIES = 20_000


def cases(settings: Settings) -> Iterator[Case]:
    for number in settings.sizes:
        yield from measure(number, settings)


def measure(number: int, settings: Settings) -> Iterator[Case]:
    """Measure search and k-means over `number` samples."""
    local = mixture(number, settings.device)
    features_ND, number_N = local.features_MD, local.number_M
    query_QD = features_ND[:QUERIES]
    searches: dict[str, Callable[[], object]] = {"ours": lambda: neighbors(features_ND, number_N)}
    clusterings: dict[str, Callable[[], object]] = {"ours": lambda: lloyd(features_ND, CLUSTERS, ITERATIONS)}
    for baseline in baselines(features_ND, settings.threads) if settings.device == "cpu" else []:
        searches[baseline.name] = partial(baseline.search, query_QD.numpy(), NEIGHBORS + 1)
        clusterings[baseline.name] = partial(baseline.cluster, CLUSTERS, ITERATIONS)
    repeats = settings.repeats if number <= REPEATED else 0
    seconds, peaks = measured(searches, settings, repeats)
    yield Case(f"neighbours of {len(query_QD):,} among {number:,}", "seconds", seconds, peaks)
    seconds, peaks = measured(clusterings, settings, repeats)
    yield Case(f"k-means of {number:,}", "seconds", seconds, peaks)


def neighbors(features_ND: Tensor, number_N: Tensor) -> Tensor:
    """Return the numbers [Q, k] of the nearest other samples of the first Q samples."""
    found = Nearest(features_ND[:QUERIES], NEIGHBORS, number_N[:QUERIES])
    for number_P, rows_PD in zip(torch.split(number_N, CHUNK), torch.split(features_ND, CHUNK), strict=True):
        found.update(number_P, rows_PD)
    return found.number_Nk
