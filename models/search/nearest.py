"""Exact nearest rows by cosine: a coarse search whose result is proven row by row.

Most of the work of an exact search is to see that a pair is not near. That needs few digits: where the processor
multiplies bfloat16 faster, all pairs are scored in it, the best few are scored again in float32, and a bound on the
rounding proves that nothing else can be among the k nearest. Rows without a proof are scored anew in float32.

    |a.b - s| <= |a - a'| + |a'| |b - b'| + D 2^-23 + u |s|

a, b unit rows, a', b' what bfloat16 keeps of them, s their product rounded with unit u = 2^-8. The norms are measured.
To find the best of a row, the largest of each group of columns is taken first: the k best lie in the k best groups.

N queries, R queries of a chunk, P rows of a piece of the bank, D dimensions, k neighbours, K candidates, G of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from models.training.precision import multiplies_bfloat16

ROWS, PIECE = 512, 65536  # of a chunk of scores: 64 MiB in bfloat16, 128 in float32
_GROUP = 16
_HIDDEN = -2.0  # below every cosine
# Numbers of the rows that are scored again at a time. What stays in a core's cache is eight times as fast; a GPU wants
# few kernels, and 32 MiB twice.
_RESCORED = {"cpu": 2**20, "cuda": 2**23}
_UNIT = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}  # rounding of a score; float32's is in the bound's third term
_WASTED = 0.5  # share of rows without a proof above which the coarse pass is not worth its time


@dataclass(frozen=True)
class _Piece:
    """Some rows of the bank: unit rows, their ascending numbers, and what the coarse type keeps of them."""

    unit_PD: Tensor
    number_P: Tensor
    coarse_PD: Tensor  # filled with zeros to whole groups
    lost: float  # the largest norm of what it does not keep
    score_RP: Tensor  # where scores are written: fresh memory for each chunk would cost as much as they do


class Nearest:
    """The k nearest rows of a bank to each query, which sees the bank piece by piece.

    Memory: N k (4 + 8) bytes for the result; the rest is of a fixed size: about 250 MiB and a copy of one piece.

    Args:
        query_ND: any floating type; directions count, not lengths.
        k: neighbours.
        own_N: the number that each query has in the bank itself, which is left out; None where it is not in there.
        rows: queries of a chunk.
    """

    def __init__(self, query_ND: Tensor, k: int, own_N: Tensor | None = None, rows: int | None = None) -> None:
        self._query_ND, self._own_N, self._rows = query_ND, own_N, rows or ROWS
        self._coarse = _coarse_type(query_ND.device)
        self.similarity_Nk = torch.full((len(query_ND), k), -torch.inf, device=query_ND.device)
        self.number_Nk = torch.full((len(query_ND), k), -1, device=query_ND.device)

    @torch.no_grad()
    def look_at(self, number_P: Tensor, rows_PD: Tensor) -> None:
        """Takes a piece of the bank into account: the numbers of its rows, ascending, and the rows."""
        with _full_precision(rows_PD.device):
            unit_PD = normalize(rows_PD.float())
            piece = _piece(unit_PD, number_P, self._coarse, self._rows)
            exact = piece if self._coarse == torch.float32 else None
            for first in range(0, len(self._query_ND), self._rows):
                block = slice(first, first + self._rows)
                query_RD = normalize(self._query_ND[block].float())
                own_R = None if self._own_N is None else self._own_N[block]
                before = self.similarity_Nk[block], self.number_Nk[block]
                similarity_Rk, number_Rk, unsure_R = _search(query_RD, own_R, piece, *before)
                if piece is not exact and len(unsure := unsure_R.nonzero()[:, 0]):
                    exact = exact or _piece(unit_PD, number_P, torch.float32, self._rows)
                    own = None if own_R is None else own_R[unsure]
                    found = _search(query_RD[unsure], own, exact, *(old[unsure] for old in before))
                    similarity_Rk[unsure], number_Rk[unsure] = found[:2]
                    if len(unsure) > _WASTED * len(query_RD):
                        piece, self._coarse = exact, torch.float32
                self.similarity_Nk[block], self.number_Nk[block] = similarity_Rk, number_Rk


def _search(
    query_RD: Tensor, own_R: Tensor | None, piece: _Piece, best_Rk: Tensor, number_Rk: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The best so far with the rows of a piece, and which queries have no proof that these are the best."""
    k, coarse_RD = best_Rk.shape[1], query_RD.to(piece.coarse_PD.dtype)
    unit = _UNIT[coarse_RD.dtype]
    lost_R = (query_RD - coarse_RD).norm(dim=1) + coarse_RD.float().norm(dim=1) * piece.lost
    lost_R1 = (lost_R + query_RD.shape[1] * 2.0**-23)[:, None]

    score_RP = torch.mm(coarse_RD, piece.coarse_PD.T, out=piece.score_RP[: len(coarse_RD)])
    score_RP[:, len(piece.unit_PD) :] = _HIDDEN  # rows that fill the last group
    if own_R is not None:
        column_R = torch.searchsorted(piece.number_P, own_R).clamp_max(len(piece.number_P) - 1)
        inside = (piece.number_P[column_R] == own_R).nonzero()[:, 0]
        score_RP[inside, column_R[inside]] = _HIDDEN
    score_RK, place_RK = _best(score_RP, 2 * k + 12)

    # What cannot be among the k best is not scored again.
    least_R1 = best_Rk[:, -1:]
    if score_RK.shape[1] >= k:
        kth_R1 = score_RK[:, k - 1 : k]
        least_R1 = torch.maximum(least_R1, kth_R1 - unit * kth_R1.abs() - lost_R1)
    most_RK = score_RK + 1.01 * unit * score_RK.abs() + lost_R1
    row, slot = ((most_RK >= least_R1) & (score_RK > _HIDDEN)).nonzero(as_tuple=True)
    exact_RK = torch.full_like(score_RK, -torch.inf)
    size = max(1, _RESCORED.get(row.device.type, 2**23) // query_RD.shape[1])
    column = place_RK[row, slot]
    products = [
        query_RD.index_select(0, r).mul_(piece.unit_PD.index_select(0, c)).sum(1)
        for r, c in zip(torch.split(row, size), torch.split(column, size), strict=True)
    ]
    exact_RK[row, slot] = torch.cat(products)

    found_RK = piece.number_P[place_RK.clamp_max(len(piece.number_P) - 1)]
    best_Rk, order = torch.cat([best_Rk, exact_RK], 1).topk(k, 1)
    number_Rk = torch.cat([number_Rk, found_RK], 1).gather(1, order)
    unsure_R = (most_RK[:, -1] > best_Rk[:, -1]) & (score_RK.shape[1] < score_RP.shape[1])
    return best_Rk, number_Rk, unsure_R


def _best(score_RP: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest scores of each row in float32, falling, and their columns; all where there are fewer."""
    rows, columns = score_RP.shape
    groups = columns // _GROUP
    if groups <= count:
        value_RK, place_RK = score_RP.float().topk(min(count, columns), 1)
        return value_RK, place_RK
    score_RGC = score_RP.view(rows, _GROUP, groups)  # column g * groups + c is in group c
    group_RK = score_RGC.amax(1).float().topk(count, 1, sorted=False).indices
    member_RGK = score_RGC.gather(2, group_RK[:, None].expand(-1, _GROUP, -1))
    value_RK, member_RK = member_RGK.flatten(1).float().topk(count, 1)
    return value_RK, member_RK // count * groups + group_RK.gather(1, member_RK % count)


def _piece(unit_PD: Tensor, number_P: Tensor, dtype: torch.dtype, rows: int) -> _Piece:
    """Unit rows made ready for chunks of `rows` queries, scored in `dtype`."""
    coarse_PD = pad(unit_PD.to(dtype), (0, 0, 0, -len(unit_PD) % _GROUP))
    halves = zip(torch.split(unit_PD, rows), torch.split(coarse_PD, rows), strict=False)
    lost = max(float((unit - coarse[: len(unit)]).norm(dim=1).max()) for unit, coarse in halves)
    return _Piece(unit_PD, number_P, coarse_PD, lost, coarse_PD.new_empty(rows, len(coarse_PD)))


def _coarse_type(device: torch.device) -> torch.dtype:
    """bfloat16 on CPUs that multiply it, with sums in float32."""
    return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16(device) else torch.float32


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Products of float32 in float32, whatever autocast and TF32 are set to: the bound relies on it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
