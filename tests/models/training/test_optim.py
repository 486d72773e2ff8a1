"""Optimizers against loops over parameters, groups, and schedules against the published formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.training.lars import LARS
from models.training.optim import build_optimizer, cosine_schedule, set_learning_rate


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2, bias=False)).double()


def naive_lars(
    weights: list[Tensor], gradients: list[list[Tensor]], lr: float, decay: float, exclude: bool
) -> list[Tensor]:
    """LARS as ICCL's released code has it, one parameter at a time."""
    weights, buffers = [w.clone() for w in weights], [torch.zeros_like(w) for w in weights]
    for step in gradients:
        for w, g, b in zip(weights, step, buffers, strict=True):
            plain = exclude and w.ndim <= 1
            norm, slope = w.square().sum().sqrt(), g.square().sum().sqrt()
            local, wd = (1.0, 0.0) if plain else (0.001 * norm / (slope + decay * norm), decay)
            if not plain and (norm == 0 or slope == 0):
                local = 1.0
            b.mul_(0.9).add_(lr * local * (g + wd * w))
            w.sub_(b)
    return weights


@pytest.mark.parametrize("exclude", [True, False])
def test_lars_equals_the_loop(exclude: bool) -> None:
    network = model()
    start = [p.detach().clone() for p in network.parameters()]
    optimizer = build_optimizer(
        network.named_parameters(), "lars", 2.0, weight_decay=1e-2, exclude_norm_and_bias=exclude
    )
    gradients = [[torch.randn_like(p) * (step != 1) for p in start] for step in range(4)]
    for step in gradients:
        for parameter, gradient in zip(network.parameters(), step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for mine, expected in zip(network.parameters(), naive_lars(start, gradients, 2.0, 1e-2, exclude), strict=True):
        torch.testing.assert_close(mine.detach(), expected)


def test_lars_state_travels_and_bad_numbers_are_one_line() -> None:
    network = model()
    optimizer = LARS(network.parameters(), 0.1)
    network(torch.randn(4, 4, dtype=torch.float64)).sum().backward()
    optimizer.step()
    other = LARS(network.parameters(), 0.1)
    other.load_state_dict(optimizer.state_dict())
    for parameter in network.parameters():
        assert torch.equal(other.state[parameter]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])
    with pytest.raises(ValueError, match="out of range"):
        LARS(network.parameters(), -1)


def test_sgd_decays_everything_or_only_matrices() -> None:
    for exclude in (False, True):
        network = model()
        before = [p.detach().clone() for p in network.parameters()]
        optimizer = build_optimizer(network.named_parameters(), "sgd", 0.1, 0.9, 0.5, exclude_norm_and_bias=exclude)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for parameter, was in zip(network.parameters(), before, strict=True):
            share = 1.0 if exclude and was.ndim <= 1 else 0.95
            torch.testing.assert_close(parameter.detach(), share * was)


def test_teachers_are_left_out_and_constant_rates_stay() -> None:
    network = model()
    network[0].requires_grad_(False)
    optimizer = build_optimizer(network.named_parameters(), "adamw", 0.1, constant=("3.",))
    held = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert set(held) == {id(p) for p in network.parameters() if p.requires_grad}
    set_learning_rate(optimizer, 0.03)
    assert held[id(network[3].weight)]["lr"] == 0.1
    assert held[id(network[1].weight)]["lr"] == 0.03


def test_bad_optimizers_are_one_line() -> None:
    network = model()
    with pytest.raises(ValueError, match="unknown optimizer 'adam'; choose from sgd, lars, adamw"):
        build_optimizer(network.named_parameters(), "adam", 0.1)
    with pytest.raises(ValueError, match=r"starts with 'predictor\.'"):
        build_optimizer(network.named_parameters(), "sgd", 0.1, constant=("predictor.",))
    with pytest.raises(ValueError, match="no parameter"):
        build_optimizer([], "sgd", 0.1)


def test_per_step_schedule_is_msvqs() -> None:
    shares = [cosine_schedule(step, 195, 200, warmup_epochs=5) for step in range(195 * 200)]
    assert shares[0] == 0
    assert shares[195] == pytest.approx(1 / 5)
    assert shares[5 * 195] == max(shares) == 1
    middle = 5 * 195 + 195 * 195 // 2
    assert shares[middle] == pytest.approx(0.5, abs=1e-3)
    assert 0 < shares[-1] < 1e-6
    for step in (1000, 20_000, 38_000):
        assert shares[step] == pytest.approx(0.5 * (1 + math.cos(math.pi * (step - 975) / (39_000 - 975))))


def test_per_epoch_schedule_is_mocos() -> None:
    for step in range(0, 50 * 10):
        expected = 0.5 * (1 + math.cos(math.pi * (step // 50) / 10))
        assert cosine_schedule(step, 50, 10, per_epoch=True) == pytest.approx(expected)


def test_ends_of_a_schedule() -> None:
    assert cosine_schedule(0, 10, 5, warmup_epochs=2, warmup_start=0.1) == pytest.approx(0.1)
    assert cosine_schedule(50, 10, 5, end=0.01) == pytest.approx(0.01)
    assert cosine_schedule(99, 10, 5) == 0
    for bad in ({"steps_per_epoch": 0, "epochs": 5}, {"steps_per_epoch": 1, "epochs": 5, "warmup_epochs": 5}):
        with pytest.raises(ValueError, match=r"schedule over|warm-up of"):
            cosine_schedule(0, **bad)
