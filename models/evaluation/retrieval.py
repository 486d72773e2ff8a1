"""Retrieval: whether images of the query's class lie near it, by recall@k and mean average precision.

    recall@k = share of queries with an image of their class among the k nearest
    AP       = 1/R sum over the ranks i of the R images of the query's class of  (how many of them are in 1..i) / i
    mAP      = mean of AP over the queries

A query whose class has no other image in the bank cannot be answered: `rank` gives it 0, and `answerable` finds it, so
that means are taken without it.

The complete ranking is needed, so each chunk of queries is sorted against the whole bank. Images at the same distance
keep the bank's order. Each process ranks its share of the queries against the whole bank.

Memory: the bank once on every process, and about 40 bytes for each pair of a chunk: 350 MiB at most for a bank of up
to 8 million images.

Shapes: N images of the bank, M queries, Q queries of a chunk, D features, K values of k.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

_PAIRS = 2**23  # (query, image) pairs of a chunk


def answerable(label_M: Tensor, bank_label_N: Tensor, leave_one_out: bool) -> Tensor:
    """Return for every query whether the bank has an image of its class, beside the query itself: [M] bool.

    Args:
        leave_one_out: whether every query is an image of the bank.
    """
    size = 1 + int(max(label_M.max(), bank_label_N.max()))
    count_C = torch.bincount(bank_label_N, minlength=size)
    return count_C[label_M] > int(leave_one_out)


@torch.no_grad()
def rank(
    query_MD: Tensor,
    query_label_M: Tensor,
    bank_ND: Tensor,
    bank_label_N: Tensor,
    k: Sequence[int],
    own_M: Tensor | None = None,
    pairs: int = _PAIRS,
) -> tuple[Tensor, Tensor]:
    """Return recall@k and average precision of every query.

    Args:
        own_M: the row of the bank that is the query itself, which is left out; None where the bank does not hold
            queries.
        pairs: the largest number of (query, image) pairs in memory at a time; at least one query is taken.

    Returns:
        found [M, K] bool: whether an image of the query's class is among the k nearest; average precision [M] float64.

    Raises:
        ValueError: an empty bank, different widths, or a k below 1.
    """
    number = len(bank_ND) - (own_M is not None)
    if number < 1 or query_MD.shape[1] != bank_ND.shape[1] or min(k) < 1:
        shapes = f"{tuple(query_MD.shape)} and {tuple(bank_ND.shape)}"
        raise ValueError(f"cannot rank, for k {min(k)} and more, queries and bank of shapes {shapes}")
    unit_ND = normalize(bank_ND.float())
    rank_N = torch.arange(1, number + 1, device=bank_ND.device)
    last_K = torch.tensor(k, device=bank_ND.device).clamp_max(number) - 1
    found, precision = [], []
    for block in torch.split(torch.arange(len(query_MD), device=query_MD.device), max(1, pairs // len(bank_ND))):
        similarity_QN = normalize(query_MD[block].float()) @ unit_ND.T
        if own_M is not None:
            similarity_QN[torch.arange(len(block), device=block.device), own_M[block]] = -torch.inf  # sorted last
        order_QN = similarity_QN.sort(dim=1, descending=True, stable=True).indices[:, :number]
        right_QN = bank_label_N[order_QN] == query_label_M[block, None]
        seen_QN = right_QN.cumsum(1)
        found.append(seen_QN[:, last_K] > 0)
        share_QN = (seen_QN / rank_N).masked_fill_(~right_QN, 0.0)
        precision.append(share_QN.sum(1, dtype=torch.float64) / seen_QN[:, -1].clamp_min(1))
    if not found:
        return torch.zeros(0, len(k), dtype=torch.bool), torch.zeros(0, dtype=torch.float64)
    return torch.cat(found), torch.cat(precision)
