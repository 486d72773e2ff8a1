"""NNCLR's step against the formula; what enters the queue, and when."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from models import build, resolve
from models.methods.nnclr import Settings
from pipelines.batch import Batch
from tests.support.small_methods import PAPER

SMALL = {
    "width": 8, "crop_size": 16, "batch_size": 8, "hidden": 32, "dim": 16, "predictor_hidden": 32, "queue_size": 20,
}  # fmt: skip


def method_of(**overrides):
    torch.manual_seed(0)
    return build("nnclr", "cifar10", **(SMALL | PAPER["nnclr"] | overrides))


def batch_of(count=8, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count), torch.arange(count), 0)


@pytest.mark.parametrize("both", [False, True])
def test_loss_and_gradient_equal_the_formula(both):
    """With both directions, as MSVQ's authors ran it, each prediction must find its neighbour, too."""
    method, batch = method_of(both_directions=both), batch_of()
    reference = copy.deepcopy(method).double()
    z = [reference.student(view.double()) for view in batch.views]
    p = [normalize(reference.predictor(rows)) for rows in z]
    queue = reference.queue.keys()
    near = [torch.stack([queue[(queue @ row / row.norm()).argmax()] for row in rows.detach()]) for rows in z]
    expected = torch.zeros((), dtype=torch.float64)
    for neighbors, predictions in ((near[0], p[1]), (near[1], p[0])):
        for i in range(8):
            terms = [(neighbors[i] @ row / 0.1).exp() for row in predictions]
            expected = expected - (terms[i] / sum(terms)).log() / (32 if both else 16)
            if both:
                terms = [(predictions[i] @ row / 0.1).exp() for row in normalize(neighbors)]
                expected = expected - (terms[i] / sum(terms)).log() / 32
    value = method(batch).total
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    for (name, own), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-6, name


def test_only_the_first_view_enters_the_queue_after_the_look_up():
    method, batch = method_of(), batch_of()
    reference = copy.deepcopy(method)
    method(batch)
    keys = normalize(reference.student(batch.views[0]))
    assert torch.allclose(method.queue.keys()[:8], keys, atol=1e-5)
    assert torch.equal(method.queue.keys()[8:], reference.queue.keys()[8:])
    for _ in range(3):  # 32 keys through a queue of 20
        assert torch.isfinite(method(batch).total)
    assert int(method.queue.pointer) == 12


def test_bad_settings_are_one_line():
    with pytest.raises(ValueError, match=r"--temperature is 0\.0; give a number above 0"):
        Settings(temperature=0.0)
    with pytest.raises(ValueError, match="queue_size is 100, less than a batch of 256"):
        resolve("nnclr", "cifar10", queue_size=100)
