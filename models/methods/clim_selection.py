"""CLIM's selection by all processes together: each works on its own samples and sees those of the others in chunks.

    whitening   covariances are summed over processes
    neighbours  every chunk of the data set is sent to every process
    k-means     sums and sizes of the clusters are summed over processes
    rule        the chunks are sent once more, now that the centres are known

The result equals that of one process with all samples, except where two similarities are equal in float32.

Memory of one of W processes: its N / W features twice (D float32 numbers each, plain and whitened), N / W x k
neighbours, one chunk of 65,536 samples, fixed blocks of about 250 MiB, W C D doubles for k-means; and at the end the
result, N (k + 3) int32 numbers, and twice that while it is collected: the plan of every process needs all of it.

Shapes: N samples of all processes, M of this one, D dimensions, k neighbours, C clusters, P rows of a chunk,
Q candidates of all samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.distributed import all_gather
from models.neighbors import central_in_chunk, closer_than_average, whiten
from models.search.kmeans import lloyd
from models.search.nearest import CHUNK, Nearest
from models.search.sharded_features import LocalFeatures, all_gather_rows, iter_chunks


@dataclass(frozen=True)
class Candidates:
    """The possible partners of every sample, the same on all processes.

    Those of sample n are `pool[start_N[n] : start_N[n] + count_N[n]]`. `pool` and `neighbors_Nk` are int32, `start_N`
    and `count_N` int64.
    """

    pool: Tensor
    start_N: Tensor
    count_N: Tensor
    neighbors_Nk: Tensor


@torch.no_grad()
def select(
    local: LocalFeatures, rule: str, components: int, neighbors: int, clusters: int, iterations: int
) -> Candidates:
    """Return the candidates of every sample.

    Args:
        local: this process's samples and their pooled features.
        rule: "paper" (neighbours closer to the centre) or "snapshot" (the closer half of the cluster).
        components: number of whitened components in which distances are measured; 0 takes the features as they are.

    Raises:
        ValueError: there are fewer samples than neighbours or clusters.
    """
    if not 1 <= neighbors < local.total:
        raise ValueError(f"{neighbors} neighbours are asked of {local.total} samples; take 1 to {local.total - 1}")
    # A narrow backbone has fewer directions than the published number of components: then all are taken.
    kept = min(components, local.features_MD.shape[1])
    space_MD = whiten(local.features_MD, kept, all_gather) if kept else normalize(local.features_MD.float())
    local = replace(local, features_MD=space_MD)

    search = Nearest(space_MD, neighbors, local.number_M)
    for number_P, rows_PD in iter_chunks(local, CHUNK):
        search.update(number_P, rows_PD)
    neighbors_Mk = search.number_Nk
    centroids_CD, assignment_M = lloyd(space_MD, clusters, iterations, all_gather=all_gather)

    if rule == "paper":
        mask_Mk = torch.zeros_like(neighbors_Mk, dtype=torch.bool)
        for number_P, rows_PD in iter_chunks(local, CHUNK):
            mask_Mk |= central_in_chunk(space_MD, neighbors_Mk, centroids_CD, assignment_M, number_P, rows_PD)
        return _central_neighbors(local.number_M, neighbors_Mk, mask_Mk)
    eligible_M = closer_than_average(space_MD, centroids_CD, assignment_M, all_gather)
    return _central_members(local.number_M, neighbors_Mk, assignment_M, eligible_M, clusters)


def _central_neighbors(number_M: Tensor, neighbors_Mk: Tensor, mask_Mk: Tensor) -> Candidates:
    """Return the neighbours that the mask keeps, concatenated over the samples."""
    _, neighbors_Nk = all_gather_rows(number_M, neighbors_Mk.int())
    mask_Nk = all_gather_rows(number_M, mask_Mk.byte())[1].bool()
    count_N = mask_Nk.sum(1)
    return Candidates(neighbors_Nk[mask_Nk], count_N.cumsum(0) - count_N, count_N, neighbors_Nk)


def _central_members(
    number_M: Tensor, neighbors_Mk: Tensor, assignment_M: Tensor, eligible_M: Tensor, clusters: int
) -> Candidates:
    """Return the eligible members of each sample's cluster, which the samples of one cluster share."""
    _, neighbors_Nk = all_gather_rows(number_M, neighbors_Mk.int())
    assignment_N = all_gather_rows(number_M, assignment_M)[1]
    eligible_Q = all_gather_rows(number_M, eligible_M.byte())[1].nonzero()[:, 0]
    cluster_Q, order_Q = assignment_N[eligible_Q].sort(stable=True)
    count_C = torch.bincount(cluster_Q, minlength=clusters)
    start_C = count_C.cumsum(0) - count_C
    return Candidates(eligible_Q[order_Q].int(), start_C[assignment_N], count_C[assignment_N], neighbors_Nk)
