"""CLIM's selection rules over a whole data set: nearest neighbours, clusters, and which samples are central.

CLIM (arXiv 2011.02697): for each anchor, search samples that are similar to it, and keep those that lie closer to the
centre of the anchor's cluster than the anchor does.

Nothing here depends on the order of the samples. (The published code draws partners from a window of list positions;
since image folders are sorted by class, that window leaks labels.) Nothing holds an N x N matrix. Cost: neighbours
N^2 D, k-means N C D per iteration.

These rules take all rows on one process; `methods/clim_selection.py` applies them to rows that are spread over
processes. The search and k-means themselves are in `search/nearest.py` and `search/kmeans.py`.

Shapes: N samples, M of this process, D dimensions, E kept components, k neighbours, C clusters, R rows of a block,
P rows of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.search import nearest
from models.search.kmeans import ROWS, AllGather, alone, lloyd

_EIGEN_FLOOR = 1e-6  # a direction with less than this share of the largest variance counts as empty


def whiten(features_MD: Tensor, dimensions: int, all_gather: AllGather = alone) -> Tensor:
    """Return the leading principal components, whitened and scaled to unit length (CLIM, a.3).

    Each component is divided by its standard deviation before the scaling.

    Args:
        features_MD: this process's rows, of any floating type.
        dimensions: components to keep, at most D.
        all_gather: stacks a tensor of every process; the default is for a single process.

    Returns:
        [M, dimensions] float32, unit rows.

    Raises:
        ValueError: more components than dimensions.
    """
    width = features_MD.shape[1]
    if not 1 <= dimensions <= width:
        raise ValueError(
            f"{dimensions} whitened components of {width}-dimensional features do not exist; take 1 to {width}"
        )
    blocks = torch.split(features_MD, ROWS) if len(features_MD) else ()  # converted to float64 one at a time
    sum_and_count = torch.zeros(width + 1, dtype=torch.float64, device=features_MD.device)
    sum_and_count[-1] = len(features_MD)
    for block_RD in blocks:
        sum_and_count[:-1] += block_RD.double().sum(0)
    sum_and_count = all_gather(sum_and_count).sum(0)
    mean_D = sum_and_count[:-1] / sum_and_count[-1]
    scatter_DD = sum_and_count.new_zeros(width, width)
    for block_RD in blocks:
        centred_RD = block_RD.double() - mean_D
        scatter_DD += centred_RD.T @ centred_RD
    variance_D, direction_DD = torch.linalg.eigh(all_gather(scatter_DD).sum(0) / sum_and_count[-1])
    variance_E, direction_DE = variance_D.flip(0)[:dimensions], direction_DD.flip(1)[:, :dimensions]
    # A direction and its opposite are equally principal. k-means starts from directions, so the sign is fixed here.
    largest_1E = direction_DE.gather(0, direction_DE.abs().argmax(0, keepdim=True))
    scale_E = variance_E.clamp_min(float(variance_E[0]) * _EIGEN_FLOOR + torch.finfo(torch.float64).tiny).rsqrt()
    projection_DE = all_gather(direction_DE * largest_1E.sign() * scale_E)[0]  # machines differ in the last digits
    white = [normalize((block_RD.double() - mean_D) @ projection_DE).float() for block_RD in blocks]
    return torch.cat([features_MD.new_empty(0, dimensions, dtype=torch.float32), *white])


def nearest_neighbors(features_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k most similar other samples of each sample, by cosine.

    Returns:
        similarity_Nk float32 in descending order, index_Nk int64. The search is exact; a sample is never its own
        neighbour.

    Raises:
        ValueError: k is not between 1 and N - 1.
    """
    number = len(features_ND)
    if not 1 <= k < number:
        raise ValueError(f"{k} neighbours are asked of {number} samples; take 1 to {number - 1}")
    number_N = torch.arange(number, device=features_ND.device)
    search = nearest.Nearest(features_ND, k, number_N)
    for number_P, rows_PD in zip(
        torch.split(number_N, nearest.CHUNK), torch.split(features_ND, nearest.CHUNK), strict=True
    ):
        search.update(number_P, rows_PD)
    return search.similarity_Nk, search.number_Nk


def kmeans(features_ND: Tensor, clusters: int, iterations: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Run Lloyd's algorithm with squared Euclidean distances; see `search/kmeans.py`.

    Returns:
        centroids_CD float32, assignment_N int64 (to the returned centroids).

    Raises:
        ValueError: the number of clusters is not between 1 and N.
    """
    return lloyd(features_ND.float(), clusters, iterations, seed)


def center_wise(features_ND: Tensor, neighbors_Nk: Tensor, centroids_CD: Tensor, assignment_N: Tensor) -> Tensor:
    """Apply CLIM's rule: which neighbours lie at most as far from the anchor's cluster centre as the anchor itself.

    Distances are squared Euclidean, in the space of the centroids.

    Returns:
        mask_Nk, bool.
    """
    number_N = torch.arange(len(features_ND), device=features_ND.device)
    return central_in_chunk(features_ND, neighbors_Nk, centroids_CD, assignment_N, number_N, features_ND)


def central_in_chunk(
    features_MD: Tensor,
    neighbors_Mk: Tensor,
    centroids_CD: Tensor,
    assignment_M: Tensor,
    number_P: Tensor,
    rows_PD: Tensor,
) -> Tensor:
    """`center_wise` for a chunk of the samples: their ascending numbers and their rows.

    Returns:
        mask_Mk, bool: the neighbour is in the chunk and as close to the centre as the anchor is.
    """
    mask_Mk = torch.zeros_like(neighbors_Mk, dtype=torch.bool)
    for first in range(0, len(features_MD), ROWS):
        block = slice(first, first + ROWS)
        neighbors_Rk, center_RD = neighbors_Mk[block], centroids_CD[assignment_M[block]]
        own_R = (features_MD[block] - center_RD).square().sum(1)
        row_Rk = torch.searchsorted(number_P, neighbors_Rk).clamp_max(len(number_P) - 1)
        inside_Rk = number_P[row_Rk] == neighbors_Rk
        for column in range(neighbors_Rk.shape[1]):  # one neighbour at a time bounds the memory
            inside = inside_Rk[:, column].nonzero()[:, 0]
            distance = (rows_PD[row_Rk[inside, column]] - center_RD[inside]).square().sum(1)
            mask_Mk[first + inside, column] = distance <= own_R[inside]
    return mask_Mk


def closer_than_average(
    features_MD: Tensor, centroids_CD: Tensor, assignment_M: Tensor, all_gather: AllGather = alone
) -> Tensor:
    """Apply the published code's rule: which samples are at most as far from their centre as their cluster on average.

    Returns:
        eligible_M, bool, of this process's rows; the average is over the rows of all processes.
    """
    blocks = zip(torch.split(features_MD, ROWS), torch.split(assignment_M, ROWS), strict=True)
    squares = [(block_RD - centroids_CD[own_R]).double().square().sum(1) for block_RD, own_R in blocks]
    distance_M = torch.cat(squares)
    total_2C = distance_M.new_zeros(2, len(centroids_CD))
    total_2C[0].index_add_(0, assignment_M, distance_M)
    total_2C[1].index_add_(0, assignment_M, torch.ones_like(distance_M))
    distance_C, count_C = all_gather(total_2C).sum(0)
    eligible_M: Tensor = distance_M <= (distance_C / count_C.clamp_min(1))[assignment_M]
    return eligible_M
