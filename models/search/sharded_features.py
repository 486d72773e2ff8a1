"""A process's part of the features of a data set, and how every process gets to see the parts of all.

The equations of the selection take rows and never call a collective; what they need of other processes is brought to
them here: `iter_chunks` shows all rows, a bounded number at a time; `all_gather_rows` collects what is small
enough to keep.

M samples of this process, N of all, D features, P rows of a piece, W processes.
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
    """What one process holds of a data set's features.

    Attributes:
        number_M: int64, ascending: which samples; each sample is held by exactly one process.
        features_MD: their features.
        total: N, the samples of all processes.
    """

    number_M: Tensor
    features_MD: Tensor
    total: int

    @staticmethod
    def whole(features_ND: Tensor) -> LocalFeatures:
        """Everything, held by a single process."""
        return LocalFeatures(torch.arange(len(features_ND), device=features_ND.device), features_ND, len(features_ND))


def iter_chunks(local: LocalFeatures, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The numbers [P] and features [P, D] of all samples, at most `size` at a time, the same on every process.

    Every process must go through all of them. Memory: one piece, sent by the process that holds it; alone, a view.
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
    """Numbers [N] and rows [N, ...] of all processes, whose parts may differ in length, in order of the numbers.

    Memory: twice the result.
    """
    if world()[1] == 1:
        return number_M, rows_M
    missing = int(all_gather(torch.tensor(len(number_M), device=number_M.device)).max()) - len(number_M)
    number_N = gather(pad(number_M, (0, missing), value=-1))
    rows_N = gather(pad(rows_M, (0, 0) * (rows_M.dim() - 1) + (0, missing)))
    number_N, order_N = number_N.sort(stable=True)
    there = slice(int((number_N < 0).sum()), None)
    return number_N[there], rows_N[order_N[there]]
