"""ICCL's equations against loops in float64, values and gradients; the rotation against its definition.

The mean over processes: test_methods_distributed_heads.py.
"""

import math

import pytest
import torch
from torch import Tensor

from models.clustering import (
    adaptive_temperature,
    cross_view_cross_entropy,
    log_assignment,
    log_mean,
    principal_rotation,
    ramp,
    uniformity,
)

B, K = 12, 32


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()


def naive_assignment(row: Tensor, temperature: float) -> Tensor:
    powers = torch.stack([(value / row.norm() / temperature).exp() for value in row])
    return powers / powers.sum()


def naive_cross_entropy(q1: Tensor, q2: Tensor, p1: Tensor, p2: Tensor, tau1: float, tau2: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for target, student in ((q1, p2), (q2, p1)):
        for q, p in zip(target, student, strict=True):
            m, s = naive_assignment(q, tau2), naive_assignment(p, tau1)
            total = total - sum(m[k] * s[k].log() for k in range(K)) / (2 * len(q1))
    return total


def naive_uniformity(p1: Tensor, p2: Tensor, tau1: float) -> Tensor:
    rows = [naive_assignment(p, tau1) for p in (*p1, *p2)]
    mean = sum(rows) / len(rows)
    return sum((1 / K) * ((1 / K) / mean[k]).log() for k in range(K))


def relative(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference).norm() / reference.norm()).item()


def ours(what: str, q1: Tensor, q2: Tensor, p1: Tensor, p2: Tensor) -> Tensor:
    log1, log2 = log_assignment(p1, 0.1), log_assignment(p2, 0.1)
    if what == "uniformity":
        return uniformity(log1, log2)
    return cross_view_cross_entropy(log_assignment(q1, 0.07).exp(), log_assignment(q2, 0.07).exp(), log1, log2)


@pytest.mark.parametrize("what", ["cross entropy", "uniformity"])
def test_equals_the_naive_float64_reference(what: str) -> None:
    exact = [random(B, K, seed=seed) for seed in range(4)]
    with torch.no_grad():
        exact[2][:, :4] += 2  # predictions that prefer a few clusters
        exact[3][:, :4] += 2
    single = [rows.detach().float().requires_grad_() for rows in exact]
    if what == "uniformity":
        reference = naive_uniformity(*exact[2:], 0.1)
    else:
        reference = naive_cross_entropy(exact[0].detach(), exact[1].detach(), *exact[2:], 0.1, 0.07)
    value = ours(what, *single)
    assert value.dtype == torch.float32
    assert relative(value, reference) < 1e-6
    reference.backward()
    value.backward()
    for own, other in zip(single[2:], exact[2:], strict=True):
        assert relative(own.grad, other.grad) < 1e-6
    assert single[0].grad is None and single[1].grad is None
    torch.testing.assert_close(ours(what, *exact), reference, rtol=1e-12, atol=1e-12)


def test_the_first_views_target_supervises_the_second_views_student() -> None:
    log = [log_assignment(random(B, K, seed=seed), 0.1) for seed in range(4)]
    crossed = cross_view_cross_entropy(log[0].exp(), log[1].exp(), log[1], log[0])  # s_2 = m_1, s_1 = m_2
    entropy = -sum((rows.exp() * rows).sum(1).mean() for rows in log[:2]) / 2
    torch.testing.assert_close(crossed, entropy)
    assert cross_view_cross_entropy(log[0].exp(), log[1].exp(), log[0], log[1]) > crossed


def test_uniformity_is_zero_for_a_uniform_mean_and_positive_otherwise() -> None:
    one_hot = torch.eye(K) * 1000
    assert uniformity(torch.log_softmax(one_hot, 1)[:1]).item() == pytest.approx(
        1000 * (K - 1) / K - math.log(K), rel=1e-6
    )
    spread = torch.log_softmax(one_hot / 50, 1)  # each row names another cluster: uniform on average
    assert uniformity(spread).item() == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.full((5, K), -math.log(K))).item() == pytest.approx(0, abs=1e-6)
    assert uniformity(log_assignment(random(B, K), 0.1)) > 1e-3


def test_uniformity_is_finite_where_a_cluster_is_never_used() -> None:
    rows = torch.zeros(4, K)
    rows[:, 0] = 1
    rows.requires_grad_()
    value = uniformity(log_assignment(rows, 1e-3))  # exp(-1000) is 0 in float32, its logarithm is not taken
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(rows.grad).all()


def test_mean_of_means_is_the_mean() -> None:
    log = log_assignment(random(12, K), 0.1)
    parts = torch.stack([log_mean(part) for part in log.split(3)])
    torch.testing.assert_close(uniformity(parts), uniformity(log))


def test_adaptive_temperature_starts_near_0_054_and_rises_to_1() -> None:
    rows = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    target = log_assignment(rows, 0.07).exp()
    temperature = adaptive_temperature(target)
    assert temperature.shape == (256, 1)
    assert temperature.mean().item() == pytest.approx(0.054, abs=0.002)
    entropy = -(target * target.log()).sum(1).mean()
    assert entropy.item() == pytest.approx(6.04, abs=0.02)
    assert adaptive_temperature(torch.eye(8)).unique().item() == 1
    assert adaptive_temperature(torch.eye(8), 0.1).unique().item() == pytest.approx(0.1)
    assert not adaptive_temperature(target.requires_grad_()).requires_grad


def test_rotation_equals_its_definition() -> None:
    rows, other = random(80, 16), random(10, 16, seed=1)
    rotation = principal_rotation(rows, 16)
    unit = rows.detach() / rows.detach().norm(dim=1, keepdim=True)
    covariance = torch.cov(unit.T, correction=0)
    basis = rotation.basis_KC
    torch.testing.assert_close(basis.T @ basis, torch.eye(16, dtype=torch.float64))
    variance = basis.T @ covariance @ basis
    torch.testing.assert_close(variance, variance.diag().diag(), atol=1e-12, rtol=0)
    assert (variance.diag().diff() <= 0).all()  # the leading direction comes first
    assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()
    turned = rotation.apply(other)
    centred = other / other.norm(dim=1, keepdim=True) - unit.mean(0)
    torch.testing.assert_close(turned, (centred @ basis) / centred.norm(dim=1, keepdim=True))
    assert not basis.requires_grad and not rotation.mean_K.requires_grad
    turned.square().mul(torch.arange(16)).sum().backward()
    assert other.grad is not None and other.grad.abs().sum() > 0
    assert rows.grad is None
    assert principal_rotation(rows, 4).apply(other).shape == (10, 4)
    torch.testing.assert_close(principal_rotation(rows, 4).basis_KC, basis[:, :4])


def test_rotation_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = random(80, 16).detach()
    first, second = principal_rotation(rows, 16), principal_rotation(rows.flip(0), 16)
    torch.testing.assert_close(first.basis_KC, second.basis_KC)
    with pytest.raises(ValueError, match="17 principal directions of 16"):
        principal_rotation(rows, 17)


def test_ramp_moves_once_an_epoch() -> None:
    assert [ramp(epoch, 150, 180) for epoch in (0, 149, 150, 151, 165, 179, 180, 299)] == [
        0, 0, 0, 1 / 30, 0.5, 29 / 30, 1, 1,
    ]  # fmt: skip
    assert [ramp(epoch, 0, 0) for epoch in (0, 5)] == [1, 1]  # clustering from the start
    assert [ramp(epoch, 10, 10) for epoch in (9, 10)] == [0, 1]


def test_float32_under_autocast() -> None:
    rows = torch.randn(B, K)
    with torch.autocast("cpu", torch.bfloat16):
        log = log_assignment(rows.bfloat16(), 0.1)
        assert log.dtype == uniformity(log).dtype == torch.float32
        assert principal_rotation(rows.bfloat16(), 4).apply(rows.bfloat16()).dtype == torch.float32
