"""Weighted k-nearest-neighbour classification over a bank of labelled features.

The monitor of instance discrimination (Wu et al., arXiv 1805.01978, section 3.4): cosine similarity, the k nearest of a
labelled bank vote for their class with weight exp(similarity / temperature).

Shapes: B queries, N bank rows, D features, C classes, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def nearest(
    query_BD: Tensor, bank_ND: Tensor, k: int, chunk: int = 32768, query_chunk: int = 1024
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank with the largest cosine to each query, exactly, nearest first.

    Both sides come in chunks and each query keeps a running best k: beyond inputs and results, memory is
    query_chunk x (chunk + 4 k) numbers (134 MB here) and one chunk in float32, whatever B and N. Wide chunks: torch's
    top-k on a CPU is several times faster on rows of more than 64 k columns.

    Returns:
        (similarity [B, k] float32, row of the bank [B, k]); k is at most N.

    Raises:
        ValueError: k below 1, an empty bank, or different widths.
    """
    if k < 1 or len(bank_ND) == 0 or query_BD.shape[1] != bank_ND.shape[1]:
        shapes = f"{tuple(query_BD.shape)} and {tuple(bank_ND.shape)}"
        raise ValueError(f"cannot look for {k} neighbours among queries and bank of shapes {shapes}")
    k = min(k, len(bank_ND))
    similarity_Bk = torch.empty(len(query_BD), k, device=query_BD.device)
    row_Bk = torch.empty(len(query_BD), k, device=query_BD.device, dtype=torch.int64)
    with torch.autocast(query_BD.device.type, enabled=False):
        for first in range(0, len(query_BD), query_chunk):
            block = slice(first, first + query_chunk)
            query = F.normalize(query_BD[block].float(), dim=1)
            best, rows = query.new_empty(len(query), 0), row_Bk.new_empty(len(query), 0)
            for start in range(0, len(bank_ND), chunk):
                part = F.normalize(bank_ND[start : start + chunk].float(), dim=1)
                value, place = (query @ part.T).topk(min(k, len(part)), 1, sorted=False)
                best, rows = torch.cat([best, value], 1), torch.cat([rows, place + start], 1)
                best, order = best.topk(min(k, best.shape[1]), 1)
                rows = rows.gather(1, order)
            similarity_Bk[block], row_Bk[block] = best, rows
    return similarity_Bk, row_Bk


def knn_predict(
    query_BD: Tensor, bank_ND: Tensor, labels_N: Tensor, k: int, temperature: float, classes: int, chunk: int = 32768
) -> Tensor:
    """The weighted vote of the k nearest rows of a labelled bank for each query.

    Args:
        labels_N: classes of the bank's rows, all 0 or more.
        k: neighbours; all of the bank where it is smaller.

    Returns:
        [B, C] float32 scores: the sum over the neighbours of a class of exp(similarity / temperature), over that of
        all.

    Raises:
        ValueError: the temperature is not above 0, or see `nearest`.
    """
    if temperature <= 0:
        raise ValueError(f"kNN temperature is {temperature}; give more than 0")
    similarity_Bk, row_Bk = nearest(query_BD, bank_ND, k, chunk)
    weight_Bk = torch.softmax(similarity_Bk / temperature, 1)  # a common factor changes no vote, and cannot overflow
    scores_BC = weight_Bk.new_zeros(len(query_BD), classes)
    return scores_BC.scatter_add_(1, labels_N.to(row_Bk.device)[row_Bk], weight_Bk)


def topk_accuracy(scores_BC: Tensor, labels_B: Tensor, k: int) -> float:
    """Share of the queries whose class is among the k highest scores, in percent; all classes where they are fewer.

    Raises:
        ValueError: no queries.
    """
    if len(labels_B) == 0:
        raise ValueError("accuracy of no samples")
    best_Bk = scores_BC.topk(min(k, scores_BC.shape[1]), 1).indices
    return 100 * (best_Bk == labels_B.to(best_Bk.device)[:, None]).any(1).double().mean().item()
