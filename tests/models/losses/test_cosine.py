"""BYOL's and SimSiam's distances against loops in float64, values and gradients; the target gets none."""

import pytest
import torch
from torch import Tensor

from models.losses.cosine import negative_cosine, squared_distance


def naive_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    rows = [-(p / p.norm()) @ (q / q.norm()) for p, q in zip(prediction, target, strict=True)]
    return torch.stack(rows).mean()


def naive_distance(prediction: Tensor, target: Tensor) -> Tensor:
    rows = [((p / p.norm() - q / q.norm()) ** 2).sum() for p, q in zip(prediction, target, strict=True)]
    return torch.stack(rows).mean()


@pytest.mark.parametrize(("ours", "naive"), [(negative_cosine, naive_cosine), (squared_distance, naive_distance)])
def test_equals_the_naive_float64_reference(ours, naive):
    torch.manual_seed(0)
    exact = torch.randn(12, 24, dtype=torch.float64).requires_grad_()
    target = (exact.detach() + torch.randn(12, 24)).requires_grad_()
    single = exact.detach().float().requires_grad_()
    reference, value = naive(exact, target.detach()), ours(single, target.float())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(reference.item(), rel=1e-6)
    reference.backward()
    value.backward()
    assert (single.grad.double() - exact.grad).norm() < 1e-6 * exact.grad.norm()
    assert target.grad is None
    torch.testing.assert_close(ours(exact, target), reference, rtol=1e-12, atol=1e-12)


def test_ranges_and_half_precision():
    rows = torch.randn(4, 8)
    assert negative_cosine(rows, rows).item() == pytest.approx(-1)
    assert squared_distance(rows, -rows).item() == pytest.approx(4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(negative_cosine(rows, rows.flip(0)), negative_cosine(rows, rows.flip(0)))
        assert squared_distance(rows.bfloat16(), rows).dtype == torch.float32
