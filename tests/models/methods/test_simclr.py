"""SimCLR's step against the formula; the loss alone is in test_relations.py."""

import copy

import pytest
import torch

from models import build, resolve
from models.methods.simclr import Settings
from pipelines.batch import Batch
from tests.support.small_methods import PAPER

SMALL = {"width": 8, "crop_size": 16, "batch_size": 6, "hidden": 32, "dim": 16}


def method_of(**overrides):
    torch.manual_seed(0)
    return build("simclr", "cifar10", **(SMALL | PAPER["simclr"] | overrides))


def batch_of(count=6, size=16):
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count), torch.arange(count), 0)


def test_loss_and_gradient_equal_the_formula():
    method, batch = method_of(), batch_of()
    reference = copy.deepcopy(method).double()
    rows = torch.cat([reference.student(view.double()) for view in batch.views])
    rows = rows / rows.norm(dim=1, keepdim=True)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(12):
        others = sum((rows[i] @ rows[k] / 0.5).exp() for k in range(12) if k != i)
        expected = expected - ((rows[i] @ rows[(i + 6) % 12] / 0.5).exp() / others).log() / 12
    value = method(batch).total
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    for (name, own), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-6, name


def test_as_msvqs_authors_ran_it():
    """The negatives of a view are the other images' other views only."""
    method, batch = method_of(temperature=0.2, same_view_negatives=False), batch_of()
    reference = copy.deepcopy(method).double()
    first, second = (
        rows / rows.norm(dim=1, keepdim=True) for rows in map(reference.student, map(torch.Tensor.double, batch.views))
    )
    expected = 0.0
    for queries, keys in ((first, second), (second, first)):
        for i in range(6):
            columns = [(queries[i] @ key / 0.2).exp() for key in keys]
            expected = expected - (columns[i] / sum(columns)).log() / 12
    assert method(batch).total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_bad_settings_are_one_line():
    with pytest.raises(ValueError, match=r"--temperature is 0\.0; give a number above 0"):
        Settings(temperature=0.0)
    with pytest.raises(ValueError, match="a batch of 1 has no negatives"):
        resolve("simclr", "cifar10", batch_size=1, bn_splits=1)
