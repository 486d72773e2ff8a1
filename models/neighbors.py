"""CLIM's selection rules over a whole data set: nearest neighbours, clusters, and who is central.

CLIM (arXiv 2011.02697): for an anchor, search samples that are locally similar to it, and of those keep the ones that
lie closer to the anchor's cluster centre than the anchor does.

Nothing here depends on the order of the samples: the published snapshot draws partners from a window of list positions,
and since image folders are sorted by class, that window leaks labels. Nothing holds an N x N matrix. Cost: neighbours
N^2 D, k-means N C D per iteration.

These are the rules for rows in one place; `selection.py` applies them to rows that are spread over processes. Search
and k-means themselves are in `nearest.py` and `kmeans.py`.

N samples, M of this process, D dimensions, k neighbours, C clusters, R rows of a chunk, P rows of a piece.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.search import nearest
from models.search.kmeans import ROWS, AllGather, alone, lloyd

_EIGEN_FLOOR = 1e-6  # share of the largest variance under which a direction counts as empty


def whiten(features_MD: Tensor, dimensions: int, all_gather: AllGather = alone) -> Tensor:
    """Leading principal components, each divided by its standard deviation, then scaled to unit length (CLIM, a.3).

    Args:
        features_MD: any floating type; the own rows, if `all_gather` brings together those of all processes.
        dimensions: components to keep, at most D.

    Returns:
        [M, dimensions] float32, unit rows.

    Raises:
        ValueError: more components are asked for than there are.
    """
    width = features_MD.shape[1]
    if not 1 <= dimensions <= width:
        raise ValueError(
            f"{dimensions} whitened components are asked of {width}-dimensional features; take 1 to {width}"
        )
    chunks = torch.split(features_MD, ROWS) if len(features_MD) else ()  # in float64, a chunk at a time
    total_E = torch.zeros(width + 1, dtype=torch.float64, device=features_MD.device)
    total_E[-1] = len(features_MD)
    for chunk_RD in chunks:
        total_E[:-1] += chunk_RD.double().sum(0)
    total_E = all_gather(total_E).sum(0)
    mean_D = total_E[:-1] / total_E[-1]
    square_DD = total_E.new_zeros(width, width)
    for chunk_RD in chunks:
        centred_RD = chunk_RD.double() - mean_D
        square_DD += centred_RD.T @ centred_RD
    variance, direction = torch.linalg.eigh(all_gather(square_DD).sum(0) / total_E[-1])
    variance, direction = variance.flip(0)[:dimensions], direction.flip(1)[:, :dimensions]
    # A direction and its opposite are equally principal; k-means starts from directions, so one of them is agreed on.
    largest = direction.gather(0, direction.abs().argmax(0, keepdim=True))
    scale = variance.clamp_min(float(variance[0]) * _EIGEN_FLOOR + torch.finfo(torch.float64).tiny).rsqrt()
    projection = all_gather(direction * largest.sign() * scale)[0]  # machines may differ in their last digits
    white = [normalize((chunk_RD.double() - mean_D) @ projection).float() for chunk_RD in chunks]
    return torch.cat([features_MD.new_empty(0, dimensions, dtype=torch.float32), *white])


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
    number_N = torch.arange(number, device=features_ND.device)
    search = nearest.Nearest(features_ND, k, number_N)
    for number_P, rows_PD in zip(
        torch.split(number_N, nearest.PIECE), torch.split(features_ND, nearest.PIECE), strict=True
    ):
        search.look_at(number_P, rows_PD)
    return search.similarity_Nk, search.number_Nk


def kmeans(features_ND: Tensor, clusters: int, iterations: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm with squared Euclidean distances; see `kmeans.lloyd`.

    Returns:
        centroids_CD float32, assignment_N int64 (to the returned centroids).

    Raises:
        ValueError: there are not between 1 and N clusters.
    """
    return lloyd(features_ND.float(), clusters, iterations, seed)


def center_wise(features_ND: Tensor, neighbors_Nk: Tensor, centroids_CD: Tensor, assignment_N: Tensor) -> Tensor:
    """CLIM's rule: which neighbours lie at most as far from the anchor's cluster centre as the anchor itself.

    Distances are squared Euclidean, in the space of the centroids.

    Returns:
        mask_Nk, bool.
    """
    number_N = torch.arange(len(features_ND), device=features_ND.device)
    return central_in_piece(features_ND, neighbors_Nk, centroids_CD, assignment_N, number_N, features_ND)


def central_in_piece(
    features_MD: Tensor,
    neighbors_Mk: Tensor,
    centroids_CD: Tensor,
    assignment_M: Tensor,
    number_P: Tensor,
    rows_PD: Tensor,
) -> Tensor:
    """`center_wise` where only some samples are at hand: their numbers, ascending, and rows. The others get False.

    Returns:
        mask_Mk, bool: the neighbour is in the piece, and as close to the centre as the anchor is.
    """
    mask_Mk = torch.zeros_like(neighbors_Mk, dtype=torch.bool)
    for first in range(0, len(features_MD), ROWS):
        block = slice(first, first + ROWS)
        neighbors_Rk, center_RD = neighbors_Mk[block], centroids_CD[assignment_M[block]]
        own_R = (features_MD[block] - center_RD).square().sum(1)
        place_Rk = torch.searchsorted(number_P, neighbors_Rk).clamp_max(len(number_P) - 1)
        inside_Rk = number_P[place_Rk] == neighbors_Rk
        for column in range(neighbors_Rk.shape[1]):  # one at a time, so that a chunk stays small
            row = inside_Rk[:, column].nonzero()[:, 0]
            distance = (rows_PD[place_Rk[row, column]] - center_RD[row]).square().sum(1)
            mask_Mk[first + row, column] = distance <= own_R[row]
    return mask_Mk


def closer_than_average(
    features_MD: Tensor, centroids_CD: Tensor, assignment_M: Tensor, all_gather: AllGather = alone
) -> Tensor:
    """The released snapshot's rule: which samples are at most as far from their centre as their cluster is on average.

    Returns:
        eligible_M, bool, of the own rows; the average is over those that `all_gather` brings together.
    """
    pairs = zip(torch.split(features_MD, ROWS), torch.split(assignment_M, ROWS), strict=True)
    parts = [(chunk_RD - centroids_CD[own_R]).double().square().sum(1) for chunk_RD, own_R in pairs]
    distance_M = torch.cat(parts)
    total_2C = distance_M.new_zeros(2, len(centroids_CD))
    total_2C[0].index_add_(0, assignment_M, distance_M)
    total_2C[1].index_add_(0, assignment_M, torch.ones_like(distance_M))
    distance_C, count_C = all_gather(total_2C).sum(0)
    eligible_M: Tensor = distance_M <= (distance_C / count_C.clamp_min(1))[assignment_M]
    return eligible_M
