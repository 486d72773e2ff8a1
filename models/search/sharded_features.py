"""A data set's features spread over the processes, and how each process gets to see those of the others.

The rules of the selection take rows and never call a collective. What they need of other processes comes from here:
`iter_chunks` yields all rows, a bounded number at a time; `all_gather_rows` collects what is small enough to keep.

Shapes: M samples of this process, N of all processes, D features, P rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.distributed import all_gather, broadcast, gather, world


@dataclass(frozen=True)
class LocalFeatures:
    """This process's share of a data set's features.

    Attributes:
        number_M: int64, ascending: the numbers of its samples; exactly one process holds each sample.
        features_MD: their features.
        total: N, the number of samples of all processes.
    """

    number_M: Tensor
    features_MD: Tensor
    total: int

    @staticmethod
    def single_process(features_ND: Tensor) -> LocalFeatures:
        """Return all features as the share of a single process."""
        return LocalFeatures(torch.arange(len(features_ND), device=features_ND.device), features_ND, len(features_ND))


def iter_chunks(local: LocalFeatures, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield numbers [P] and features [P, D] of all samples, at most `size` at a time, the same on every process.

    Every process must iterate to the end. Memory: one chunk, sent by the process that holds it; with one process, a
    view.
    """
    rank, _ = world()
    counts = all_gather(torch.tensor(len(local.number_M), device=local.features_MD.device)).tolist()
    for source, count in enumerate(counts):
        for first in range(0, count, size):
            length = min(size, count - first)
            if source == rank:
                number_P, features_PD = local.number_M[first : first + size], local.features_MD[first : first + size]
            else:
                number_P = local.number_M.new_empty(length)
                features_PD = local.features_MD.new_empty(length, local.features_MD.shape[1])
            yield broadcast(number_P, source), broadcast(features_PD, source)


def all_gather_rows(number_M: Tensor, rows_M: Tensor) -> tuple[Tensor, Tensor]:
    """Collect numbers [N] and rows [N, ...] of all processes, ascending by number; their shares may differ in length.

    Memory: twice the result.
    """
    if world()[1] == 1:
        return number_M, rows_M
    missing = int(all_gather(torch.tensor(len(number_M), device=number_M.device)).max()) - len(number_M)
    number_N = gather(pad(number_M, (0, missing), value=-1))
    rows_N = gather(pad(rows_M, (0, 0) * (rows_M.dim() - 1) + (0, missing)))
    number_N, order_N = number_N.sort(stable=True)
    unpadded = slice(int((number_N < 0).sum()), None)
    return number_N[unpadded], rows_N[order_N[unpadded]]
