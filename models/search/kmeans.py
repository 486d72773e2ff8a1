"""k-means by Lloyd's algorithm, over the rows of one process or of all.

The result does not depend on the order of the samples or on how they are spread over processes: the initial centroids
are the samples that reach furthest in seeded random directions, an empty cluster restarts at the sample furthest from
its centroid, and sums are taken in float64, where the order of summation is lost in the rounding to float32.

The functions compute on the rows of their process. What needs all rows goes through `all_gather`, which takes a tensor
of one shape from every process and returns all of them, stacked.

Shapes: M rows of this process, W processes, C clusters, D dimensions, E empty clusters, R rows of a block, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

ROWS = 4096  # rows of a block: with 1,000 clusters 16 MiB of distances
_GROUP = 8

#: From [...] on each process to [W, ...], the same on all.
AllGather = Callable[[Tensor], Tensor]


def alone(tensor: Tensor) -> Tensor:
    """`all_gather` of a single process."""
    return tensor[None]


@torch.no_grad()
def lloyd(
    features_MD: Tensor, clusters: int, iterations: int, seed: int = 0, all_gather: AllGather = alone
) -> tuple[Tensor, Tensor]:
    """Cluster by squared Euclidean distance; ends early where nothing moves any more.

    Memory: 12 M bytes, W (C + 1) D 12 bytes for what the processes exchange, and one block.

    Args:
        features_MD: float32; a process may have no rows.

    Returns:
        centroids_CD float32, the same on every process, and assignment_M int64 of this process's rows to them.

    Raises:
        ValueError: the number of clusters is not between 1 and N, the number of rows of all processes.
    """
    number = int(all_gather(torch.tensor([len(features_MD)], device=features_MD.device)).sum())
    if not 1 <= clusters <= number:
        raise ValueError(f"{clusters} clusters cannot be made of {number} samples; take 1 to {number}")
    centroids_CD = _first_centroids(features_MD, clusters, number, seed, all_gather)
    for _ in range(iterations):
        mean_CD, count_C, distance_M = _means(features_MD, centroids_CD, all_gather)
        empty_E = (count_C == 0).nonzero()[:, 0]
        if len(empty_E):
            mean_CD[empty_E] = _furthest(features_MD, distance_M, len(empty_E), all_gather)
        if torch.equal(mean_CD, centroids_CD):
            break
        centroids_CD = mean_CD
    assignments = [assignment_R for _, assignment_R, _ in assign(features_MD, centroids_CD)]
    return centroids_CD, torch.cat([torch.zeros(0, dtype=torch.int64, device=features_MD.device), *assignments])


def assign(features_MD: Tensor, centroids_CD: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield blocks of rows [R, D], the nearest centroid [R] of each row, and the squared distance [R] to it."""
    clusters = len(centroids_CD)
    filled_CD = pad(centroids_CD, (0, 0, 0, -clusters % _GROUP))
    offset_C = pad(centroids_CD.square().sum(1), (0, -clusters % _GROUP), value=torch.inf)
    score_RC = torch.empty(ROWS, len(filled_CD), device=features_MD.device)
    for first in range(0, len(features_MD), ROWS):
        block_RD = features_MD[first : first + ROWS]
        own_RC = score_RC[: len(block_RD)]
        torch.addmm(offset_C, block_RD, filled_CD.T, alpha=-2, out=own_RC)
        score_RGC = own_RC.view(len(block_RD), _GROUP, -1)
        # argmin is slow over many columns: first find the group with the minimum, then the minimum in the group.
        group_R1 = score_RGC.amin(1).argmin(1, keepdim=True)
        best = score_RGC.gather(2, group_R1[:, None].expand(-1, _GROUP, -1))[:, :, 0].min(1)
        assignment_R = best.indices * score_RGC.shape[2] + group_R1[:, 0]
        yield block_RD, assignment_R, best.values + block_RD.square().sum(1)


def _means(features_MD: Tensor, centroids_CD: Tensor, all_gather: AllGather) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [C, D] float32 and size [C] of every cluster over all processes, and the own rows' distances [M]."""
    total_CD = torch.zeros_like(centroids_CD, dtype=torch.float64)
    count_C = total_CD.new_zeros(len(centroids_CD))
    distances = [features_MD.new_zeros(0)]
    for block_RD, assignment_R, distance_R in assign(features_MD, centroids_CD):
        total_CD.index_add_(0, assignment_R, block_RD.double())
        count_C.index_add_(0, assignment_R, torch.ones_like(distance_R, dtype=torch.float64))
        distances.append(distance_R)
    sum_and_count = all_gather(torch.cat([total_CD, count_C[:, None]], 1)).sum(0)
    count_C = sum_and_count[:, -1]
    return (sum_and_count[:, :-1] / count_C.clamp_min(1)[:, None]).float(), count_C, torch.cat(distances)


def _first_centroids(features_MD: Tensor, clusters: int, number: int, seed: int, all_gather: AllGather) -> Tensor:
    """Return [C, D]: for each of C random directions, the row of all processes that reaches furthest from the mean."""
    width, device = features_MD.shape[1], features_MD.device
    direction_CD = torch.randn(clusters, width, generator=torch.Generator().manual_seed(seed)).to(device)
    total_D = torch.zeros(width, dtype=torch.float64, device=device)
    for block_RD in torch.split(features_MD, ROWS):
        total_D += block_RD.double().sum(0)
    mean_D = (all_gather(total_D).sum(0) / number).float()
    reach_C = direction_CD.new_full((clusters,), -torch.inf)
    furthest_CD = torch.zeros_like(direction_CD)
    for block_RD in torch.split(features_MD, ROWS) if len(features_MD) else ():
        best_C, row_C = ((block_RD - mean_D) @ direction_CD.T).max(0)
        further_C = best_C > reach_C
        furthest_CD[further_C] = block_RD[row_C[further_C]]
        reach_C = torch.maximum(reach_C, best_C)
    owner_C = all_gather(reach_C).argmax(0)
    return all_gather(furthest_CD)[owner_C, torch.arange(clusters, device=device)]


def _furthest(features_MD: Tensor, distance_M: Tensor, count: int, all_gather: AllGather) -> Tensor:
    """Return [E, D]: the `count` rows of all processes that are furthest from their centroids."""
    distance_E = distance_M.new_full((count,), -torch.inf)
    row_ED = features_MD.new_zeros(count, features_MD.shape[1])
    own = distance_M.topk(min(count, len(distance_M)))
    distance_E[: len(own.values)] = own.values
    row_ED[: len(own.values)] = features_MD[own.indices]
    return all_gather(row_ED).flatten(0, 1)[all_gather(distance_E).flatten().topk(count).indices]
