"""The two parts of CLIM's selection that cost time, alone: neighbours of 20,000 samples among all, and k-means.

Ours beside faiss and scikit-learn, on the mixture of `selection.py`. Above 100,000 samples everyone runs once.

    python -m tools.benchmark search --sizes 100000,1000000

N samples, Q queries, D dimensions, P of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
        local = mixture(number, settings.device)
        features_ND, number_N = local.features_MD, local.number_M
        query_QD = features_ND[:QUERIES]
        searches: dict[str, Callable[[], object]] = {"ours": lambda: neighbors(features_ND, number_N)}  # noqa: B023
        clusterings: dict[str, Callable[[], object]] = {"ours": lambda: lloyd(features_ND, CLUSTERS, ITERATIONS)}  # noqa: B023
        for baseline in baselines(features_ND, settings.threads) if settings.device == "cpu" else []:
            searches[baseline.name] = lambda one=baseline: one.search(query_QD.numpy(), NEIGHBORS + 1)  # type: ignore[misc]  # noqa: B023
            clusterings[baseline.name] = lambda one=baseline: one.cluster(CLUSTERS, ITERATIONS)  # type: ignore[misc]
        repeats = settings.repeats if number <= REPEATED else 0
        found = measured(searches, settings, repeats)
        yield Case(f"neighbours of {len(query_QD):,} among {number:,}", "seconds", *found)
        yield Case(f"k-means of {number:,}", "seconds", *measured(clusterings, settings, repeats))


def neighbors(features_ND: Tensor, number_N: Tensor) -> Tensor:
    """The numbers [Q, k] of the nearest other samples of the first Q."""
    found = Nearest(features_ND[:QUERIES], NEIGHBORS, number_N[:QUERIES])
    for number_P, rows_PD in zip(torch.split(number_N, CHUNK), torch.split(features_ND, CHUNK), strict=True):
        found.update(number_P, rows_PD)
    return found.number_Nk
