"""SimSiam's step against the formula; the stopped gradient, the heads and the predictor's constant rate."""

import copy

import pytest
import torch
from torch import nn

from models import build
from models.methods.simsiam import Settings
from models.training.optim import build_optimizer, set_learning_rate
from pipelines.batch import Batch

SMALL = {"width": 8, "crop_size": 16, "batch_size": 8, "hidden": 32, "dim": 32, "predictor_hidden": 8}


def method_of(**overrides):
    torch.manual_seed(0)
    return build("simsiam", "cifar10", **(SMALL | overrides))


def batch_of(count=8, size=16):
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count), torch.arange(count), 0)


def test_loss_equals_the_formula_and_the_target_is_held_still():
    method, batch = method_of(), batch_of()
    reference = copy.deepcopy(method).double()
    z = [reference.student(view.double()) for view in batch.views]
    p = [reference.predictor(rows) for rows in z]
    expected = torch.zeros((), dtype=torch.float64)
    for own, other in ((p[0], z[1].detach()), (p[1], z[0].detach())):
        for a, b in zip(own, other, strict=True):
            expected = expected - (a @ b) / (a.norm() * b.norm()) / 16
    value = method(batch).total
    assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    value.backward()
    expected.backward()
    for (name, own), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-6, name
    assert -1 <= value.item() <= 1


def test_heads_are_the_papers():
    method = build("simsiam", "tiny_imagenet", width=8)
    kinds = [type(layer) for layer in method.student.head]
    assert [kind.__name__ for kind in kinds] == [
        "Linear", "SyncBatchNorm1d", "ReLU", "Linear", "SyncBatchNorm1d", "ReLU", "Linear", "SyncBatchNorm1d",
    ]  # fmt: skip
    assert not method.student.head[-1].affine
    assert all(layer.bias is None for layer in method.student.head if isinstance(layer, nn.Linear))
    assert method.predictor[0].bias is None and method.predictor[-1].bias is not None
    assert (method.predictor[0].in_features, method.predictor[0].out_features) == (2048, 512)
    assert len(build("simsiam", "cifar10", width=8).student.head) == 5  # two layers on CIFAR-10


def test_the_predictors_learning_rate_stays():
    method = method_of()
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.1, constant=method.constant_lr)
    set_learning_rate(optimizer, 0.01)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in method.predictor.parameters()} == {0.1}
    assert {rates[id(p)] for p in method.student.parameters()} == {0.01}


@pytest.mark.parametrize(("field", "value"), [("layers", 0), ("dim", 0), ("predictor_hidden", -1)])
def test_bad_settings_are_one_line(field, value):
    with pytest.raises(ValueError, match=f"is {value}; give at least 1"):
        Settings(**{field: value})
