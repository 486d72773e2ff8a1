"""The in-batch cross-entropy against a loop in float64, for the whole batch and for a part of it."""

import pytest
import torch
from torch import Tensor

from models.losses.batch_contrast import matching_cross_entropy


def naive(query: Tensor, keys: Tensor, positions: list[int], temperature: float) -> Tensor:
    losses = []
    for q, own in zip(query, positions, strict=True):
        terms = [((q / q.norm()) @ (k / k.norm()) / temperature).exp() for k in keys]
        losses.append(-(terms[own] / sum(terms)).log())
    return torch.stack(losses).mean()


def test_equals_the_naive_float64_reference():
    torch.manual_seed(0)
    exact = [torch.randn(n, 16, dtype=torch.float64).requires_grad_() for n in (4, 12)]
    single = [rows.detach().float().requires_grad_() for rows in exact]
    position = [1, 4, 7, 10]
    reference = naive(*exact, position, 0.2)
    value = matching_cross_entropy(*single, torch.tensor(position), 0.2)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(reference.item(), rel=1e-6)
    reference.backward()
    value.backward()
    for own, other in zip(single, exact, strict=True):
        assert (own.grad.double() - other.grad).norm() < 1e-6 * other.grad.norm()


def test_parts_of_a_batch_average_to_the_whole():
    query, key = torch.randn(8, 16, dtype=torch.float64), torch.randn(8, 16, dtype=torch.float64)
    parts = [matching_cross_entropy(query[r::2], key, torch.arange(r, 8, 2), 0.5) for r in (0, 1)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, matching_cross_entropy(query, key, torch.arange(8), 0.5))


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="give more than 0"):
        matching_cross_entropy(torch.randn(2, 4), torch.randn(2, 4), torch.arange(2), 0.0)
