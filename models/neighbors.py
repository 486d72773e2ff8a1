"""Nearest neighbours, k-means and CLIM's selection rules over a whole data set.

CLIM (arXiv 2011.02697): for an anchor, search samples that are locally similar to it, and of those keep the ones that
lie closer to the anchor's cluster centre than the anchor does.

Nothing here depends on the order of the samples: the published snapshot draws partners from a window of list positions,
and since image folders are sorted by class, that window leaks labels. Nothing holds an N x N matrix: rows and columns
come in chunks. Cost: neighbours N^2 D, k-means N C D per iteration; memory N (D + k) and one chunk.

N samples, D dimensions, k neighbours, C clusters, R rows of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_ROWS, _COLUMNS = 4096, 16384  # of a similarity chunk: 256 MiB in float32
_EIGEN_FLOOR = 1e-6  # share of the largest variance under which a direction counts as empty


def whiten(features_ND: Tensor, dimensions: int) -> Tensor:
    """Leading principal components, each divided by its standard deviation, then scaled to unit length (CLIM, a.3).

    Args:
        features_ND: any floating type.
        dimensions: components to keep, at most D.

    Returns:
        [N, dimensions] float32, unit rows.

    Raises:
        ValueError: more components are asked for than there are.
    """
    width = features_ND.shape[1]
    if not 1 <= dimensions <= width:
        raise ValueError(
            f"{dimensions} whitened components are asked of {width}-dimensional features; take 1 to {width}"
        )
    centred = features_ND.double() - features_ND.double().mean(0)
    variance, direction = torch.linalg.eigh(centred.T @ centred / len(centred))
    variance, direction = variance.flip(0)[:dimensions], direction.flip(1)[:, :dimensions]
    scale = variance.clamp_min(float(variance[0]) * _EIGEN_FLOOR + torch.finfo(torch.float64).tiny).rsqrt()
    return normalize(centred @ (direction * scale)).float()


def nearest_neighbors(features_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar other samples of each sample, by cosine.

    Returns:
        similarity_Nk float32 in falling order, index_Nk int64. Rows are exact; a sample is never its own neighbour.

    Raises:
        ValueError: k is not between 1 and N - 1.
    """
    number = len(features_ND)
    if not 1 <= k < number:
        raise ValueError(f"{k} neighbours are asked of {number} samples; take 1 to {number - 1}")
    unit_ND = normalize(features_ND.float())
    similarity, index = [], []
    for row in range(0, number, _ROWS):
        query_RD = unit_ND[row : row + _ROWS]
        best_similarity, best_index = (
            query_RD.new_empty(len(query_RD), 0),
            torch.empty(len(query_RD), 0, dtype=torch.int64, device=query_RD.device),
        )
        for column in range(0, number, _COLUMNS):
            chunk_RC = query_RD @ unit_ND[column : column + _COLUMNS].T
            if column < row + _ROWS and row < column + _COLUMNS:  # the chunk holds pairs of a sample with itself
                own = torch.arange(row, row + len(query_RD), device=chunk_RC.device) - column
                inside = ((own >= 0) & (own < chunk_RC.shape[1])).nonzero()[:, 0]
                chunk_RC[inside, own[inside]] = -torch.inf
            top_similarity, top_index = chunk_RC.topk(min(k, chunk_RC.shape[1]), dim=1)
            merged_similarity = torch.cat([best_similarity, top_similarity], 1)
            merged_index = torch.cat([best_index, top_index + column], 1)
            best_similarity, place = merged_similarity.topk(min(k, merged_similarity.shape[1]), dim=1)
            best_index = merged_index.gather(1, place)
        similarity.append(best_similarity)
        index.append(best_index)
    return torch.cat(similarity), torch.cat(index)


def kmeans(features_ND: Tensor, clusters: int, iterations: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm with squared Euclidean distances.

    The first centroids are the samples that reach furthest in seeded random directions, and an empty cluster restarts
    at the sample furthest from its centroid: choices by content, so the order of the samples changes nothing.

    Returns:
        centroids_CD float32, assignment_N int64 (to the returned centroids).

    Raises:
        ValueError: there are not between 1 and N clusters.
    """
    number, width = features_ND.shape
    if not 1 <= clusters <= number:
        raise ValueError(f"{clusters} clusters are asked of {number} samples; take 1 to {number}")
    features_ND = features_ND.float()
    generator = torch.Generator().manual_seed(seed)
    direction_CD = torch.randn(clusters, width, generator=generator).to(features_ND.device)
    mean_D = features_ND.mean(0)
    reach_C, furthest_C = direction_CD.new_full((clusters,), -torch.inf), torch.zeros_like(direction_CD[:, 0]).long()
    for row in range(0, number, _ROWS):
        best_C, place_C = ((features_ND[row : row + _ROWS] - mean_D) @ direction_CD.T).max(0)
        furthest_C = torch.where(best_C > reach_C, place_C + row, furthest_C)
        reach_C = torch.maximum(reach_C, best_C)
    centroids_CD = features_ND[furthest_C].clone()
    for _ in range(iterations):
        assignment_N, distance_N = _assign(features_ND, centroids_CD)
        count_C = torch.zeros(clusters, device=features_ND.device, dtype=torch.float64)
        count_C.index_add_(0, assignment_N, torch.ones_like(distance_N, dtype=torch.float64))
        total_CD = torch.zeros(clusters, width, device=features_ND.device, dtype=torch.float64)
        total_CD.index_add_(0, assignment_N, features_ND.double())
        updated_CD = (total_CD / count_C.clamp_min(1)[:, None]).float()
        empty_C = (count_C == 0).nonzero()[:, 0]
        if len(empty_C):
            updated_CD[empty_C] = features_ND[distance_N.topk(len(empty_C)).indices]
        if torch.equal(updated_CD, centroids_CD):
            break
        centroids_CD = updated_CD
    return centroids_CD, _assign(features_ND, centroids_CD)[0]


def center_wise(features_ND: Tensor, neighbors_Nk: Tensor, centroids_CD: Tensor, assignment_N: Tensor) -> Tensor:
    """CLIM's rule: which neighbours lie at most as far from the anchor's cluster centre as the anchor itself.

    Distances are squared Euclidean, in the space of the centroids.

    Returns:
        mask_Nk, bool.
    """
    masks = []
    for row in range(0, len(features_ND), _ROWS):
        center_RD = centroids_CD[assignment_N[row : row + _ROWS]]
        own_R = (features_ND[row : row + _ROWS] - center_RD).square().sum(1)
        neighbors_Rk = neighbors_Nk[row : row + _ROWS]
        columns = [
            (features_ND[neighbors_Rk[:, column]] - center_RD).square().sum(1) <= own_R
            for column in range(neighbors_Rk.shape[1])
        ]
        masks.append(torch.stack(columns, 1))
    return torch.cat(masks)


def closer_than_average(features_ND: Tensor, centroids_CD: Tensor, assignment_N: Tensor) -> Tensor:
    """The released snapshot's rule: which samples are at most as far from their centre as their cluster is on average.

    Returns:
        eligible_N, bool.
    """
    distance_N = (features_ND - centroids_CD[assignment_N]).double().square().sum(1)
    total_C = distance_N.new_zeros(len(centroids_CD)).index_add_(0, assignment_N, distance_N)
    count_C = distance_N.new_zeros(len(centroids_CD)).index_add_(0, assignment_N, torch.ones_like(distance_N))
    return distance_N <= (total_C / count_C.clamp_min(1))[assignment_N]


def _assign(features_ND: Tensor, centroids_CD: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each sample, and the squared distance to it."""
    offset_C = centroids_CD.square().sum(1)
    assignment, distance = [], []
    for row in range(0, len(features_ND), _ROWS):
        chunk_RD = features_ND[row : row + _ROWS]
        best = torch.addmm(offset_C, chunk_RD, centroids_CD.T, alpha=-2).min(1)
        assignment.append(best.indices)
        distance.append(best.values + chunk_RD.square().sum(1))
    return torch.cat(assignment), torch.cat(distance)
