"""BYOL's step against the formula, the teacher's momentum, heads and views."""

import copy
import math

import pytest
import torch
from torch import nn

from models import build
from models.methods.byol import Settings
from pipelines.batch import Batch
from tests.support.small_methods import PAPER, unshuffled

SMALL = {"width": 8, "crop_size": 16, "batch_size": 8, "hidden": 32, "dim": 16}


def method_of(**overrides):
    torch.manual_seed(0)
    return build("byol", "cifar10", **(SMALL | PAPER["byol"] | overrides))


def batch_of(count=8, size=16):
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count), torch.arange(count), 0)


def test_loss_equals_the_formula():
    method, batch = method_of(), batch_of()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # a teacher that is no copy any more
    reference = copy.deepcopy(method).double()
    p = [reference.predictor(reference.student(view.double())) for view in batch.views]
    q = [reference.teacher(view.double()) for view in batch.views]
    expected = torch.zeros((), dtype=torch.float64)
    for own, other in ((p[0], q[1]), (p[1], q[0])):
        for a, b in zip(own, other, strict=True):
            expected = expected + ((a / a.norm() - b / b.norm()) ** 2).sum() / 8
    value = method(batch).total
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)  # two networks in float32
    value.backward()
    expected.backward()
    for (name, own), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None:
            assert (own.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-6, name


def test_the_teacher_follows_after_the_step_with_a_rising_momentum():
    method = method_of(ema=0.9)
    assert all(torch.equal(a, b) for a, b in zip(method.teacher.parameters(), method.student.parameters(), strict=True))
    method.begin(0, steps_per_epoch=5, epochs=2)
    for step, expected in ((0, 1 - 0.1 * (math.cos(math.pi / 10) + 1) / 2), (4, 0.95), (9, 1.0)):
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(1)
        before = [p.clone() for p in method.teacher.parameters()]
        method.after_step(step)
        assert method.step == step + 1
        for old, now, student in zip(before, method.teacher.parameters(), method.student.parameters(), strict=True):
            torch.testing.assert_close(now, expected * old + (1 - expected) * student, rtol=1e-5, atol=1e-5)


def test_heads_are_the_papers():
    method = build("byol", "photos", width=8)
    for head, inputs in ((method.student.head, 64), (method.predictor, 256)):
        first, norm, relu, last = head
        assert (first.in_features, first.out_features, last.out_features) == (inputs, 4096, 256)
        assert isinstance(norm, nn.BatchNorm1d) and isinstance(relu, nn.ReLU)
        assert first.bias is not None and last.bias is None
    first, second = method.views
    assert (first.blur_p, second.blur_p, first.solarize_p, second.solarize_p) == (1.0, 0.1, 0.0, 0.2)


def test_as_msvqs_authors_ran_it():
    """Half the sum, a teacher with shuffled batches of 2 groups, last layers with biases, a momentum that stays."""
    method, batch = (
        method_of(bn_splits=2, ema=0.9, ema_rises=False, loss_scale=0.5, last_bias=True, shuffle=True),
        batch_of(),
    )
    assert method.student.head[-1].bias is not None and method.predictor[-1].bias is not None
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    reference = copy.deepcopy(method).double()
    p = [reference.predictor(reference.student(view.double())) for view in batch.views]
    q = [unshuffled(reference.teacher, view.double(), batch.seed, key) for key, view in enumerate(batch.views)]
    expected = sum(
        ((a / a.norm() - b / b.norm()) ** 2).sum() / 16
        for own, other in ((p[0], q[1]), (p[1], q[0]))
        for a, b in zip(own, other, strict=True)
    )
    assert method(batch).total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert [method.schedule(step)["teacher_share"] for step in (0, 9)] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ema", 1.5, "ema is 1.5"),
        ("hidden", 0, "hidden is 0"),
        ("loss_scale", 0.0, "loss-scale is 0.0"),
        ("blur", (0.1, 0.1, 0.1), "3 numbers for 2 views"),
    ],
)
def test_bad_settings_are_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})
