"""Relations to a whole queue without the matrix of similarities: one pass over the queue in chunks, by online softmax.

Only two things are needed of a row's softmax over K keys: the log of its normaliser, and the mean of the keys under it.
Both can be updated chunk by chunk if the sums so far are scaled down whenever a larger logit appears:

    top' = max(top, logits),  total' = total e^(top - top') + sum e^(logits - top'),  mean' likewise with e^(..) keys

That is enough for losses and for gradients. The cross-entropy of s = softmax(z.Q) against p is

    -sum_k p_k log s_k = logsumexp(z.Q) - z.(sum_k p_k q_k)        d logsumexp(z.Q) / dz = sum_k s_k q_k

so one forward pass finds everything, the backward pass reads no queue, and the queue may be overwritten as soon as the
forward pass is done. Memory is O(M (D + chunk)), whatever K.

This module knows nothing of students or teachers. All computation is in the number type of the rows.

Shapes: M rows, K keys of a queue, D features, C keys of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pipelines.compiled import hot

# Keys of a chunk: on a CPU its logits stay in the cache; a GPU prefers few large kernels.
CHUNK = {"cpu": 1024, "cuda": 16384}


def attend(rows_MD: Tensor, keys_KD: Tensor, values_KD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the log-normaliser of the softmax of rows . keys over a queue, and the mean of the values under it.

    Args:
        rows_MD: already divided by their temperatures.
        keys_KD: L2-normalised inside; no gradient.
        values_KD: row j belongs to key j; L2-normalised inside; None takes the keys. Rows with gradient must take None.

    Returns:
        [M] logsumexp over K of rows . keys, with gradient to the rows; and [M, D] the mean of the values under the
        softmax, without gradient.
    """
    with torch.autocast(rows_MD.device.type, enabled=False):
        found: tuple[Tensor, Tensor] = _Attend.apply(rows_MD, keys_KD, values_KD)  # type: ignore[no-untyped-call]  # torch's
    return found


class _Attend(torch.autograd.Function):
    """`attend` as an autograd function: the mean of the keys under the softmax is the gradient of the logsumexp."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, keys_KD: Tensor, values_KD: Tensor | None) -> tuple[Tensor, Tensor]:
        rows_MD = rows_MD.detach()
        top_M = rows_MD.new_full((len(rows_MD),), float("-inf"))
        total_M, mean_MD = torch.zeros_like(top_M), torch.zeros_like(rows_MD)
        chunks = _chunks(keys_KD)
        values: Sequence[Tensor | None] = [None] * len(chunks) if values_KD is None else _chunks(values_KD)
        for keys_CD, values_CD in zip(chunks, values, strict=True):
            top_M, total_M, mean_MD = _attend_chunk(rows_MD, keys_CD, values_CD, top_M, total_M, mean_MD)
        mean_MD = mean_MD / total_M[:, None]
        ctx.save_for_backward(mean_MD)
        ctx.mark_non_differentiable(mean_MD)
        return top_M + total_M.log(), mean_MD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (mean_MD,) = ctx.saved_tensors
        return grad_M[:, None] * mean_MD, None, None


@hot
def _attend_chunk(
    rows_MD: Tensor, keys_CD: Tensor, values_CD: Tensor | None, top_M: Tensor, total_M: Tensor, mean_MD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the running maximum, sum and (not yet divided) mean after one more chunk."""
    keys_CD = F.normalize(keys_CD.to(rows_MD.dtype), dim=1)
    values_CD = keys_CD if values_CD is None else F.normalize(values_CD.to(rows_MD.dtype), dim=1)
    logits_MC = rows_MD @ keys_CD.T
    new_top_M = torch.maximum(top_M, logits_MC.amax(1))
    weight_MC = (logits_MC - new_top_M[:, None]).exp()
    scale_M = (top_M - new_top_M).exp()
    total_M = total_M * scale_M + weight_MC.sum(1)
    return new_top_M, total_M, torch.addmm(mean_MD * scale_M[:, None], weight_MC, values_CD)


@torch.no_grad()
def nearest(rows_MD: Tensor, keys_KD: Tensor) -> Tensor:
    """Return [M], the row of the key with the largest cosine to each row; the first of equals."""
    with torch.autocast(rows_MD.device.type, enabled=False):
        top_M = rows_MD.new_full((len(rows_MD),), float("-inf"))
        index_M = torch.zeros(len(rows_MD), dtype=torch.int64, device=rows_MD.device)
        start = torch.zeros((), dtype=torch.int64, device=rows_MD.device)
        for keys_CD in _chunks(keys_KD):
            top_M, index_M, start = _nearest_chunk(rows_MD, keys_CD, top_M, index_M, start)
    return index_M


@hot
def _nearest_chunk(
    rows_MD: Tensor, keys_CD: Tensor, top_M: Tensor, index_M: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest cosines and their keys after one more chunk, and the row at which the next chunk starts."""
    best_M, row_M = (rows_MD @ F.normalize(keys_CD.to(rows_MD.dtype), dim=1).T).max(1)
    return torch.maximum(top_M, best_M), torch.where(best_M > top_M, start + row_M, index_M), start + len(keys_CD)


def _chunks(keys_KD: Tensor) -> list[Tensor]:
    """Return the queue as chunks, which are views and not copies."""
    chunks = torch.split(keys_KD, CHUNK.get(keys_KD.device.type, CHUNK["cuda"]))
    # `.data` drops the link to the tensor that a chunk is a view of: compiled code is recompiled for views of others.
    return [chunk.data for chunk in chunks]
