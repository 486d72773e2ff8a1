"""Exact nearest rows by cosine: a coarse search whose result is proven row by row.

Most of the work of an exact search is to establish that a pair is not near, which needs few digits. Where the processor
multiplies bfloat16 faster, all pairs are scored in bfloat16, the best few are scored again in float32, and a bound on
the rounding proves that nothing else can be among the k nearest. Rows without a proof are scored again in float32.

    |a.b - s| <= |a - a'| + |a'| |b - b'| + D 2^-23 + u |s|

a, b are unit rows, a', b' their bfloat16 roundings, and s is the product of those rounded with unit u = 2^-8. The norms
are measured. To find the best of a row, the largest score of each group of columns is taken first: the k best lie in
the k best groups.

Shapes: N queries, R queries of a block, P rows of a chunk of the bank, D dimensions, k neighbours, K candidates,
G columns of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from models.training.precision import multiplies_bfloat16

ROWS, CHUNK = 512, 65536  # queries of a block, rows of a chunk: their scores take 64 MiB in bfloat16, 128 in float32
_GROUP = 16
_HIDDEN = -2.0  # below every cosine
# Elements of the rows that are scored again at a time: what stays in a core's cache is eight times as fast, and a GPU
# prefers few kernels, at twice 32 MiB.
_RESCORED = {"cpu": 2**20, "cuda": 2**23}
_UNIT = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}  # rounding of a score; float32's is in the bound's third term
_WASTED = 0.5  # with more than this share of rows without a proof, the coarse pass is not worth its time


@dataclass(frozen=True)
class _Chunk:
    """Some rows of the bank: unit rows, their ascending numbers, and their roundings to the coarse number type."""

    unit_PD: Tensor
    number_P: Tensor
    coarse_PD: Tensor  # padded with zeros to complete groups
    lost: float  # the largest norm of a row's rounding error
    score_RP: Tensor  # memory for scores: allocating it for each block would cost as much as the scores do


class Nearest:
    """The k nearest rows of a bank to each query; the bank arrives chunk by chunk.

    Memory: N k (4 + 8) bytes for the result; the rest has a fixed size, about 250 MiB and a copy of one chunk.

    Args:
        query_ND: any floating type; directions count, not lengths.
        k: the number of neighbours.
        own_N: the number that each query has in the bank itself, which is left out; None where the bank holds no
            queries.
        rows: queries of a block.

    Attributes:
        similarity_Nk: float32, the cosines of the nearest rows so far, descending; -inf where there are fewer than k.
        number_Nk: int64, their numbers; -1 where there are fewer than k.
    """

    def __init__(self, query_ND: Tensor, k: int, own_N: Tensor | None = None, rows: int | None = None) -> None:
        self._query_ND, self._own_N, self._rows = query_ND, own_N, rows or ROWS
        self._coarse = _coarse_type(query_ND.device)
        self.similarity_Nk = torch.full((len(query_ND), k), -torch.inf, device=query_ND.device)
        self.number_Nk = torch.full((len(query_ND), k), -1, device=query_ND.device)

    @torch.no_grad()
    def update(self, number_P: Tensor, rows_PD: Tensor) -> None:
        """Take a chunk of the bank into account.

        Args:
            number_P: the numbers of its rows, ascending.
        """
        with _full_precision(rows_PD.device):
            unit_PD = normalize(rows_PD.float())
            chunk = _chunk(unit_PD, number_P, self._coarse, self._rows)
            exact = chunk if self._coarse == torch.float32 else None
            for first in range(0, len(self._query_ND), self._rows):
                block = slice(first, first + self._rows)
                query_RD = normalize(self._query_ND[block].float())
                own_R = None if self._own_N is None else self._own_N[block]
                best_Rk, number_Rk = self.similarity_Nk[block], self.number_Nk[block]
                new_best_Rk, new_number_Rk, unsure_R = _search(query_RD, own_R, chunk, best_Rk, number_Rk)
                if chunk is not exact and len(unsure := unsure_R.nonzero()[:, 0]):
                    exact = exact or _chunk(unit_PD, number_P, torch.float32, self._rows)
                    own = None if own_R is None else own_R[unsure]
                    proven = _search(query_RD[unsure], own, exact, best_Rk[unsure], number_Rk[unsure])
                    new_best_Rk[unsure], new_number_Rk[unsure] = proven[:2]
                    if len(unsure) > _WASTED * len(query_RD):
                        chunk, self._coarse = exact, torch.float32
                self.similarity_Nk[block], self.number_Nk[block] = new_best_Rk, new_number_Rk


def _search(
    query_RD: Tensor, own_R: Tensor | None, chunk: _Chunk, best_Rk: Tensor, number_Rk: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best so far including a chunk's rows, and which queries have no proof that these are the best."""
    k, coarse_RD = best_Rk.shape[1], query_RD.to(chunk.coarse_PD.dtype)
    unit = _UNIT[coarse_RD.dtype]
    lost_R = (query_RD - coarse_RD).norm(dim=1) + coarse_RD.float().norm(dim=1) * chunk.lost
    lost_R1 = (lost_R + query_RD.shape[1] * 2.0**-23)[:, None]

    score_RP = torch.mm(coarse_RD, chunk.coarse_PD.T, out=chunk.score_RP[: len(coarse_RD)])
    score_RP[:, len(chunk.unit_PD) :] = _HIDDEN  # padding of the last group
    if own_R is not None:
        column_R = torch.searchsorted(chunk.number_P, own_R).clamp_max(len(chunk.number_P) - 1)
        inside = (chunk.number_P[column_R] == own_R).nonzero()[:, 0]
        score_RP[inside, column_R[inside]] = _HIDDEN
    score_RK, column_RK = _best(score_RP, 2 * k + 12)

    # Candidates that cannot be among the k best are not scored again.
    least_R1 = best_Rk[:, -1:]
    if score_RK.shape[1] >= k:
        kth_R1 = score_RK[:, k - 1 : k]
        least_R1 = torch.maximum(least_R1, kth_R1 - unit * kth_R1.abs() - lost_R1)
    most_RK = score_RK + 1.01 * unit * score_RK.abs() + lost_R1
    row, candidate = ((most_RK >= least_R1) & (score_RK > _HIDDEN)).nonzero(as_tuple=True)
    exact_RK = torch.full_like(score_RK, -torch.inf)
    size = max(1, _RESCORED.get(row.device.type, 2**23) // query_RD.shape[1])
    column = column_RK[row, candidate]
    products = [
        query_RD.index_select(0, r).mul_(chunk.unit_PD.index_select(0, c)).sum(1)
        for r, c in zip(torch.split(row, size), torch.split(column, size), strict=True)
    ]
    exact_RK[row, candidate] = torch.cat(products)

    found_RK = chunk.number_P[column_RK.clamp_max(len(chunk.number_P) - 1)]
    best_Rk, order = torch.cat([best_Rk, exact_RK], 1).topk(k, 1)
    number_Rk = torch.cat([number_Rk, found_RK], 1).gather(1, order)
    unsure_R = (most_RK[:, -1] > best_Rk[:, -1]) & (score_RK.shape[1] < score_RP.shape[1])
    return best_Rk, number_Rk, unsure_R


def _best(score_RP: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest scores of each row (or all) in float32, descending, and their columns."""
    rows, columns = score_RP.shape
    groups = columns // _GROUP
    if groups <= count:
        value_RK, column_RK = score_RP.float().topk(min(count, columns), 1)
        return value_RK, column_RK
    score_RGC = score_RP.view(rows, _GROUP, groups)  # column g * groups + c is in group c
    group_RK = score_RGC.amax(1).float().topk(count, 1, sorted=False).indices
    member_RGK = score_RGC.gather(2, group_RK[:, None].expand(-1, _GROUP, -1))
    value_RK, member_RK = member_RGK.flatten(1).float().topk(count, 1)
    return value_RK, member_RK // count * groups + group_RK.gather(1, member_RK % count)


def _chunk(unit_PD: Tensor, number_P: Tensor, dtype: torch.dtype, rows: int) -> _Chunk:
    """Prepare unit rows for blocks of `rows` queries that are scored in `dtype`."""
    coarse_PD = pad(unit_PD.to(dtype), (0, 0, 0, -len(unit_PD) % _GROUP))
    blocks = zip(torch.split(unit_PD, rows), torch.split(coarse_PD, rows), strict=False)
    lost = max(float((unit_RD - coarse_RD[: len(unit_RD)]).norm(dim=1).max()) for unit_RD, coarse_RD in blocks)
    return _Chunk(unit_PD, number_P, coarse_PD, lost, coarse_PD.new_empty(rows, len(coarse_PD)))


def _coarse_type(device: torch.device) -> torch.dtype:
    """Return bfloat16 for CPUs that multiply it, with sums in float32; float32 otherwise."""
    return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16(device) else torch.float32


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Context manager: multiply float32 in float32, whatever autocast and TF32 are set to; the bound relies on it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
