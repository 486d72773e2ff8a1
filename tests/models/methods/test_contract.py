"""What the training loop takes for granted of every method. Equations and traps are in the file of each method.

A method in the registry is tested here without a further line. What a method does otherwise is named in the tables.
"""

from __future__ import annotations

import copy
import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from models.method import Losses, Method
from models.methods.registry import REGISTRY
from models.networks.teacher import Teacher
from models.training.optim import build_optimizer
from pipelines.batch import Batch
from pipelines.plan.views import View
from tests.support.small_methods import PAPER, batch_for, small, with_partners

STEPS = 20  # one epoch each, of the training that a method believes to be in
EMA = 0.9

#: Each method at its first step; variants and the end of a schedule, where the graph is another one.
CASES: dict[str, tuple[str, dict[str, object], int]] = {
    **{name: (name, {}, 0) for name in sorted(REGISTRY)},
    "byol as in its paper": ("byol", PAPER["byol"], 0),
    "cgh late": ("cgh", {}, STEPS - 1),
    "cgh with crops": ("cgh", {"crops": (14, 12)}, STEPS - 1),
    "clim at three resolutions": ("clim", {"resolutions": (16, 14, 12)}, 0),
    "iccl late": ("iccl", {}, STEPS - 1),
    "iccl plain": ("iccl", {"variant": "plain", "adaptive": True, "pca": 8}, STEPS - 1),
    "mncl released": ("mncl", {"mode": "released"}, 0),
}

#: Batches are mixed with partners.
MIXED = ("clim", "clim at three resolutions")

#: How fast each teacher follows in a step of number `at`, where that is not one teacher with momentum EMA.
MOMENTA = {
    "byol as in its paper": lambda at: [rising(at)],
    "iccl": lambda at: [rising(at)],
    "iccl late": lambda at: [rising(at)],
    "iccl plain": lambda at: [],
    "msvq": lambda at: [EMA, 0.95],
}


def rising(at: int) -> float:
    """The momentum of BYOL's schedule."""
    return 1 - (1 - EMA) * (math.cos(math.pi * (at + 1) / STEPS) + 1) / 2


def options_of(name: str) -> set[str]:
    return {field.name for field in fields(REGISTRY[name].settings)}


def made(case: str) -> Method:
    name, changes, step = CASES[case]
    ema = {"ema": EMA} if "ema" in options_of(name) else {}
    # A residual branch that starts at zero passes no gradient in its first step.
    method = small(name, zero_init_residual=False, **ema, **changes)
    method.begin(step, 1, STEPS)
    return method


def batch_of(case: str, method: Method, seed: int = 0) -> Batch:
    batch = batch_for(method, seed=seed)
    return with_partners(method, batch) if case in MIXED else batch


def teachers(method: Method) -> list[Teacher]:
    return [module for module in method.modules() if isinstance(module, Teacher)]


def taught(method: Method) -> set[str]:
    """The names of the parameters that follow others."""
    return {
        f"{prefix}.{name}"
        for prefix, module in method.named_modules()
        if isinstance(module, Teacher)
        for name, _ in module.named_parameters()
    }


def train_step(method: Method, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    losses: Losses = method(batch)
    optimizer.zero_grad()
    losses.total.backward()
    optimizer.step()
    method.after_step(method.step)
    return losses.total.detach()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loss_is_a_finite_float32_with_finite_gradients(case: str, precision: str) -> None:
    method = made(case)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        losses = method(batch_of(case, method))
    assert losses.total.shape == () and losses.total.dtype == torch.float32 and losses.total.isfinite()
    for name, term in losses.terms.items():
        assert term.shape == () and term.isfinite() and not term.requires_grad, name
    losses.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_every_view_that_it_asks_for_tells_in_its_loss(case: str) -> None:
    method = made(case)
    batch, noise = batch_of(case, method), batch_of(case, method, seed=5)
    assert isinstance(method.views, tuple) and all(isinstance(view, View) for view in method.views)
    loss = copy.deepcopy(method)(batch).total
    assert copy.deepcopy(method)(batch).total == loss  # it draws nothing
    for number, other in enumerate(noise.views):
        views = (*batch.views[:number], other, *batch.views[number + 1 :])
        changed = Batch(views, batch.index, batch.label, batch.seed, batch.partner, batch.box)
        assert copy.deepcopy(method)(changed).total != loss, f"view {number} changes nothing"


def test_gradients_reach_all_that_is_trained_and_nothing_else(case: str) -> None:
    method = made(case)
    method(batch_of(case, method)).total.backward()
    trained = {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert set(dict(method.named_parameters())) - set(trained) == taught(method)
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert all(parameter.grad is None for name, parameter in method.named_parameters() if name not in trained)
    assert not any(buffer.requires_grad for buffer in method.buffers())  # queues among them

    backbone = list(method.encoder().parameters())
    assert backbone and {id(p) for p in backbone} <= {id(p) for p in trained.values()}
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone)


def test_a_state_dict_holds_all_that_the_next_steps_depend_on(case: str) -> None:
    method = made(case)
    train_all(method, case, range(2))
    restored = made(case)
    with torch.no_grad():
        for tensor in (*restored.parameters(), *restored.buffers()):
            tensor.copy_(torch.randn(tensor.shape))  # nothing of its own is left
    restored.load_state_dict(method.state_dict())
    restored.begin(method.step, 1, STEPS)
    assert train_all(method, case, range(2, 4)) == train_all(restored, case, range(2, 4))
    mine, theirs = method.state_dict(), restored.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def train_all(method: Method, case: str, seeds: range) -> list[Tensor]:
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.01)
    return [train_step(method, optimizer, batch_of(case, method, seed)) for seed in seeds]


def test_teachers_start_as_copies_and_follow_after_the_step(case: str) -> None:
    name, _, at = CASES[case]
    method = made(case)
    momenta = MOMENTA.get(case, lambda at: [EMA] * ("ema" in options_of(name)))(at)
    student = method.get_submodule("student")
    assert len(teachers(method)) == len(momenta)
    for teacher in teachers(method):
        assert_same(teacher.network, student)
        assert all(module.training for module in teacher.modules())
    with torch.no_grad():
        for tensor in (*student.parameters(), *student.buffers()):
            tensor.add_(1)
    before = copy.deepcopy(teachers(method))
    method.after_step(at)
    assert method.step == at + 1
    for momentum, old, teacher in zip(momenta, before, teachers(method), strict=True):
        for first, now, target in zip(*map(nn.Module.parameters, (old, teacher, student)), strict=True):
            torch.testing.assert_close(now, momentum * first + (1 - momentum) * target)
        assert all(map(torch.equal, old.buffers(), teacher.buffers()))  # statistics are a teacher's own


def assert_same(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
