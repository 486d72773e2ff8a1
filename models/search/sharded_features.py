"""A process's part of the features of a data set, and how every process gets to see the parts of all.

The equations of the selection take rows and never call a collective; what they need of other processes is brought to
them here: `pieces` shows all rows a bounded piece at a time, `rows_of_all` collects what is small enough to keep.

M samples of this process, N of all, D features, P rows of a piece, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.distributed import broadcast, everyones, gather, world


@dataclass(frozen=True)
class Part:
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
    def whole(features_ND: Tensor) -> Part:
        """Everything, held by a single process."""
        return Part(torch.arange(len(features_ND), device=features_ND.device), features_ND, len(features_ND))


def pieces(part: Part, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The numbers [P] and features [P, D] of all samples, at most `size` at a time, the same on every process.

    Every process must go through all of them. Memory: one piece, sent by the process that holds it; alone, a view.
    """
    rank, _ = world()
    counts = everyones(torch.tensor(len(part.number_M), device=part.features_MD.device)).tolist()
    for source, count in enumerate(counts):
        for first in range(0, count, size):
            length = min(size, count - first)
            if source == rank:
                number_P, features_PD = part.number_M[first : first + size], part.features_MD[first : first + size]
            else:
                number_P = part.number_M.new_empty(length)
                features_PD = part.features_MD.new_empty(length, part.features_MD.shape[1])
            yield broadcast(number_P, source), broadcast(features_PD, source)


def rows_of_all(number_M: Tensor, rows_M: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers [N] and rows [N, ...] of all processes, whose parts may differ in length, in order of the numbers.

    Memory: twice the result.
    """
    if world()[1] == 1:
        return number_M, rows_M
    missing = int(everyones(torch.tensor(len(number_M), device=number_M.device)).max()) - len(number_M)
    number_N = gather(pad(number_M, (0, missing), value=-1))
    rows_N = gather(pad(rows_M, (0, 0) * (rows_M.dim() - 1) + (0, missing)))
    number_N, order_N = number_N.sort(stable=True)
    there = slice(int((number_N < 0).sum()), None)
    return number_N[there], rows_N[order_N[there]]
