"""Weighted k-nearest-neighbour classification over a bank of labelled features.

As in the monitor of instance discrimination (Wu et al., arXiv 1805.01978, section 3.4): the k nearest rows of a
labelled bank, by cosine similarity, vote for their class with weight exp(similarity / temperature).

Shapes: B queries, M queries of this process, N bank rows, D features, C classes, k neighbours, P rows of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.search.nearest import CHUNK, ROWS, Nearest
from models.search.sharded_features import LocalFeatures, iter_chunks


def nearest(
    query_BD: Tensor, bank_ND: Tensor, k: int, chunk: int = CHUNK, query_chunk: int = ROWS
) -> tuple[Tensor, Tensor]:
    """Find the k rows of the bank with the largest cosine to each query, exactly, as `search/nearest.py` does.

    Returns:
        similarity [B, k] float32 and row of the bank [B, k] int64, nearest first; k is at most N.

    Raises:
        ValueError: k below 1, an empty bank, or different widths.
    """
    if k < 1 or len(bank_ND) == 0 or query_BD.shape[1] != bank_ND.shape[1]:
        shapes = f"{tuple(query_BD.shape)} and {tuple(bank_ND.shape)}"
        raise ValueError(f"cannot search {k} neighbours of queries in a bank, of shapes {shapes}")
    search = Nearest(query_BD, min(k, len(bank_ND)), rows=query_chunk)
    row_N = torch.arange(len(bank_ND), device=bank_ND.device)
    for row_P, bank_PD in zip(torch.split(row_N, chunk), torch.split(bank_ND, chunk), strict=True):
        search.update(row_P, bank_PD)
    return search.similarity_Nk, search.number_Nk


@torch.no_grad()
def knn_predict(
    query_BD: Tensor, bank_ND: Tensor, labels_N: Tensor, k: int, temperature: float, classes: int, chunk: int = CHUNK
) -> Tensor:
    """Return the weighted vote of the k nearest rows of a labelled bank for each query.

    Args:
        labels_N: classes of the bank's rows, all 0 or more.
        k: the neighbours that vote; all of the bank where it is smaller.

    Returns:
        [B, C] float32 scores: the sum over the neighbours of a class of exp(similarity / temperature), divided by that
        over all neighbours.

    Raises:
        ValueError: the temperature is not above 0; or see `nearest`.
    """
    similarity_Bk, row_Bk = nearest(query_BD, bank_ND, k, chunk)
    return vote(similarity_Bk, labels_N.to(row_Bk.device)[row_Bk], temperature, classes)


def predict_local(
    queries: LocalFeatures,
    bank: LocalFeatures,
    labels_N: Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int = CHUNK,
) -> Tensor:
    """`knn_predict` of this process's queries over a bank that is spread over the processes, all of which must call it.

    Args:
        labels_N: the class of every image of the bank's data set, indexed by its number.

    Returns:
        [M, C] scores of this process's queries.
    """
    if k < 1:
        raise ValueError(f"cannot search {k} neighbours; take at least 1")
    search = Nearest(queries.features_MD, min(k, bank.total))
    for number_P, bank_PD in iter_chunks(bank, chunk):
        search.update(number_P, bank_PD)
    return vote(search.similarity_Nk, labels_N.to(search.number_Nk.device)[search.number_Nk], temperature, classes)


def vote(similarity_Bk: Tensor, label_Bk: Tensor, temperature: float, classes: int) -> Tensor:
    """Return the scores of `knn_predict` from the similarities and classes of the neighbours.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"kNN temperature is {temperature}; give more than 0")
    weight_Bk = torch.softmax(similarity_Bk / temperature, 1)  # exp up to a common factor, which cannot overflow
    scores_BC = weight_Bk.new_zeros(len(weight_Bk), classes)
    return scores_BC.scatter_add_(1, label_Bk, weight_Bk)


def topk_accuracy(scores_BC: Tensor, labels_B: Tensor, k: int) -> float:
    """Return the percentage of queries whose class is among the k highest scores; all classes where there are fewer.

    Raises:
        ValueError: no queries.
    """
    if len(labels_B) == 0:
        raise ValueError("accuracy of no samples")
    return 100 * hits(scores_BC, labels_B, k).double().mean().item()


def hits(scores_BC: Tensor, labels_B: Tensor, k: int) -> Tensor:
    """Return [B] bool: whether a query's class is among its k highest scores."""
    best_Bk = scores_BC.topk(min(k, scores_BC.shape[1]), 1).indices
    return (best_Bk == labels_B.to(best_Bk.device)[:, None]).any(1)
