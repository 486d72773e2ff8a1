"""Exact search and k-means by faiss and scikit-learn, which `selection` and `search` compare with.

N samples of unit length, Q of them as queries, k neighbours, C clusters, D dimensions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Baseline:
    """A library's search and k-means over N given samples.

    Attributes:
        name: the name of the library.
        search: (queries [Q, D], k) -> the numbers of the k most similar samples [Q, k], nearest first.
        cluster: (C, iterations) -> centroids [C, D] and the number of each sample's nearest centroid [N].
    """

    name: str
    search: Callable[[Array, int], Tensor]
    cluster: Callable[[int, int], tuple[Tensor, Tensor]]


def baselines(features_ND: Tensor, threads: int) -> list[Baseline]:
    """Return the baselines that are installed, prepared for these samples; print the name of a missing one."""
    found: list[Baseline] = []
    for make in (with_faiss, with_sklearn):
        try:
            found.append(make(features_ND.numpy(), threads))
        except ModuleNotFoundError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def with_faiss(rows_ND: Array, threads: int) -> Baseline:
    """Return faiss's flat index, and its k-means over all samples (by default it would take a subset)."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(rows_ND.shape[1])
    index.add(rows_ND)

    def search(query_QD: Array, k: int) -> Tensor:
        return _tensor(index.search(query_QD, k)[1])

    def cluster(clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
        found = faiss.Kmeans(
            rows_ND.shape[1],
            clusters,
            niter=iterations,
            seed=1,
            max_points_per_centroid=len(rows_ND),
            min_points_per_centroid=1,
        )
        found.train(rows_ND)
        return _tensor(found.centroids), _tensor(found.index.search(rows_ND, 1)[1][:, 0])

    return Baseline("faiss", search, cluster)


def with_sklearn(rows_ND: Array, threads: int) -> Baseline:
    """Return scikit-learn's brute-force search, and its Lloyd's algorithm started from random samples."""
    from sklearn.cluster import KMeans
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    def search(query_QD: Array, k: int) -> Tensor:
        with threadpool_limits(threads):
            fitted = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows_ND)
            return _tensor(fitted.kneighbors(query_QD, return_distance=False))

    def cluster(clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
        start = rows_ND[np.random.default_rng(0).choice(len(rows_ND), clusters, replace=False)]
        with threadpool_limits(threads):
            found = KMeans(clusters, init=start, n_init=1, max_iter=iterations, tol=0).fit(rows_ND)
        return _tensor(found.cluster_centers_), _tensor(found.labels_)

    return Baseline("scikit-learn", search, cluster)


def _tensor(array: Any) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(array))
    return found if found.is_floating_point() else found.long()
