"""MoCo v2's step against its equation written out, and its shuffles and views."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from models import resolve
from models.methods.moco import Settings
from tests.support.small_methods import batch_for, close, contrast, gradients, small, unshuffled


@pytest.mark.parametrize("splits", [1, 2])
def test_loss_and_gradient_equal_the_equation(splits):
    method = small("moco", bn_splits=splits).double()
    batch, reference = batch_for(method), copy.deepcopy(method)
    ours = method(batch).total
    query = reference.student(batch.views[0])
    key = unshuffled(reference.teacher, batch.views[1], batch.seed)
    queue = reference.queue.keys()
    theirs = torch.stack([contrast(q, k, queue, 0.2) for q, k in zip(query, key, strict=True)]).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    ours.backward()
    theirs.backward()
    assert close(gradients(method), gradients(reference), 1e-10)
    torch.testing.assert_close(method.queue.keys()[:8], normalize(key), rtol=1e-6, atol=1e-6)
    assert torch.equal(method.queue.keys()[8:], queue[8:])  # pushed after the loss, over the oldest


def test_shuffles_differ_from_step_to_step_and_change_the_keys_of_split_norms():
    method = small("moco", bn_splits=4)
    first, second = batch_for(method), batch_for(method)
    totals = [copy.deepcopy(method)(b).total.item() for b in (first, second)]
    assert totals[0] == totals[1]  # the seed of the batch alone decides
    assert copy.deepcopy(method)(type(first)(first.views, first.index, first.label, 5)).total.item() != totals[0]


def test_both_views_are_strong_and_imagenet_is_the_published_recipe():
    method = small("moco")
    assert method.views[0] == method.views[1]
    assert (method.views[0].jitter_p, method.views[0].grayscale_p, method.views[0].blur_p) == (0.8, 0.2, 0.5)
    recipe = resolve("moco", "imagenet")
    assert (recipe.training.lr, recipe.training.weight_decay, recipe.training.warmup_epochs) == (0.03, 1e-4, 0)
    assert (recipe.settings.queue_size, recipe.settings.ema, recipe.settings.temperature) == (65536, 0.999, 0.2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", 0.0, "--temperature is 0.0; give a number above 0"),
        ("ema", 1.5, "--ema is 1.5; give 0 to 1"),
        ("queue_size", 0, "--queue-size is 0; give at least 1"),
        ("flip", 2.0, "outside 0 to 1"),
    ],
)
def test_bad_settings_are_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})


def test_a_queue_smaller_than_the_batch_is_one_line():
    training = resolve("moco", "cifar10").training
    Settings(queue_size=256).check(training)
    with pytest.raises(ValueError, match="queue_size is 255, less than a batch of 256"):
        Settings(queue_size=255).check(training)
