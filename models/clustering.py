"""ICCL's equations (arXiv 2301.03041), which read embeddings as soft cluster assignments.

An embedding of K numbers is the logits of K clusters; there are no prototypes. Assignments are kept as logarithms, so
log 0 never occurs and needs no floor. All functions are pure and compute in float32 whatever the autocast type (in
float64 where the embedding is float64).

Shapes: B samples of this process, N rows, K clusters (the embedding's width), C principal components.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from models.losses.cosine import unit


def log_assignment(embedding_BK: Tensor, temperature: float | Tensor) -> Tensor:
    """Return log softmax over the features of the L2-normalised embedding / temperature.

    Args:
        temperature: a number, or one for each row [B, 1].
    """
    with torch.autocast(embedding_BK.device.type, enabled=False):
        return torch.log_softmax(unit(embedding_BK) / temperature, 1)


def cross_view_cross_entropy(
    target_first_BK: Tensor, target_second_BK: Tensor, log_first_BK: Tensor, log_second_BK: Tensor
) -> Tensor:
    """Return L_ce, in which each view predicts the other view's assignment.

        L_ce = -1/2 [ mean_b sum_k m_1 log s_2 + mean_b sum_k m_2 log s_1 ]

    Args:
        target_first_BK, target_second_BK: m_1, m_2, the teacher's assignments; rows sum to 1. They get no gradient.
        log_first_BK, log_second_BK: log s_1, log s_2, the student's log-assignments (`log_assignment`).

    Returns:
        A scalar in nats.
    """
    first = (target_first_BK.detach() * log_second_BK).sum(1).mean()
    second = (target_second_BK.detach() * log_first_BK).sum(1).mean()
    return -(first + second) / 2


def log_mean(log_assignment_NK: Tensor) -> Tensor:
    """Return [K], the logarithm of the mean assignment of the rows."""
    return torch.logsumexp(log_assignment_NK, 0) - math.log(len(log_assignment_NK))


def uniformity(log_assignment_NK: Tensor, log_second_NK: Tensor | None = None) -> Tensor:
    """Return L_uni = -log K - mean_k log pbar_k = KL(uniform || pbar), where pbar is the mean assignment.

    It is 0 where all clusters are used equally, and grows without bound where some are not used at all. The mean must
    be over the global batch. Processes that hold equally many rows may gather the `log_mean` of each ([W, K]) instead
    of all rows, since the mean of means is the mean.

    Args:
        log_assignment_NK: log-assignments of both views and all processes.
        log_second_NK: those of the second view, if they are given separately.

    Returns:
        A scalar in nats, at least 0 up to rounding.
    """
    both = log_assignment_NK if log_second_NK is None else torch.cat([log_assignment_NK, log_second_NK])
    return -(log_mean(both) + math.log(both.shape[1])).mean()


def adaptive_temperature(target_BK: Tensor, limit: float | None = None) -> Tensor:
    """Return [B, 1], the L2 norm of each target assignment: small while the teacher is unsure, 1 where it is certain.

    Args:
        limit: an upper bound of the temperature; None for no bound.
    """
    temperature_B1: Tensor = torch.linalg.vector_norm(target_BK.detach(), dim=1, keepdim=True)
    return temperature_B1 if limit is None else temperature_B1.clamp(max=limit)


class Rotation(NamedTuple):
    """A change of coordinates: subtract `mean_K`, then project onto the columns of `basis_KC`."""

    mean_K: Tensor
    basis_KC: Tensor

    def apply(self, embedding_BK: Tensor) -> Tensor:
        """Return unit rows [B, C] in the new coordinates; gradient flows through."""
        with torch.autocast(embedding_BK.device.type, enabled=False):
            return unit((unit(embedding_BK) - self.mean_K) @ self.basis_KC)


@torch.no_grad()
def principal_rotation(rows_NK: Tensor, components: int) -> Rotation:
    """Return the leading principal directions of L2-normalised rows, as a constant without gradient.

    The sign of an eigenvector is arbitrary, but assignments depend on it: the largest entry of each is made positive,
    so that every process and every run uses the same one. Directions beyond the rank of the rows (N - 1) remain
    arbitrary.

    Raises:
        ValueError: more components than the rows are wide.
    """
    if not 1 <= components <= rows_NK.shape[1]:
        raise ValueError(f"{components} principal directions of {rows_NK.shape[1]}; give 1 to that many")
    with torch.autocast(rows_NK.device.type, enabled=False):
        rows_NK = unit(rows_NK)
        mean_K = rows_NK.mean(0)
        centred_NK = rows_NK - mean_K
        _, basis_KK = torch.linalg.eigh(centred_NK.T @ centred_NK / len(rows_NK))  # ascending
        basis_KC = basis_KK.flip(1)[:, :components]
        largest_C = basis_KC.gather(0, basis_KC.abs().argmax(0, keepdim=True))
        return Rotation(mean_K, basis_KC * torch.where(largest_C < 0, -1.0, 1.0).to(basis_KC.dtype))


def ramp(epoch: int, start: float, end: float) -> float:
    """Return the weight of the clustering loss in an epoch counted from 0: 0 up to `start`, linear to 1 at `end`."""
    if epoch >= end:
        return 1.0
    return 0.0 if epoch <= start else (epoch - start) / (end - start)
