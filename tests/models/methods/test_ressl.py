"""ReSSL's step against its equation written out, and its weak view and recipes."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from models import resolve
from models.methods.ressl import Settings
from tests.support.small_methods import batch_for, close, cross_entropy, gradients, small, unshuffled


@pytest.mark.parametrize("splits", [1, 2])
def test_loss_and_gradient_equal_the_equation(splits):
    method = small("ressl", bn_splits=splits).double()
    batch, reference = batch_for(method), copy.deepcopy(method)
    ours = method(batch).total
    student = reference.student(batch.views[0])
    teacher = unshuffled(reference.teacher, batch.views[1], batch.seed)
    queue = reference.queue.keys()
    rows = [cross_entropy(s, t, queue, 0.1, 0.04) for s, t in zip(student, teacher, strict=True)]
    theirs = torch.stack(rows).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    ours.backward()
    theirs.backward()
    assert close(gradients(method), gradients(reference), 1e-10)
    torch.testing.assert_close(method.queue.keys()[:8], normalize(teacher), rtol=1e-6, atol=1e-6)
    assert torch.equal(method.queue.keys()[8:], queue[8:])  # pushed after the loss, over the oldest


def test_the_weak_view_is_crop_and_flip_and_goes_to_the_teacher():
    method = small("ressl")
    strong, weak = method.views
    assert strong.jitter_p == 0.8 and strong.flip == 0.5
    assert weak.jitter_p == weak.grayscale_p == weak.blur_p == 0 and weak.flip == 0.5
    seen = []
    method.student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = batch_for(method)
    method(batch)
    assert len(seen) == 1 and torch.equal(seen[0], batch.views[0])


def test_recipes_are_those_of_the_re_runs_and_of_the_parent():
    for name, ema, queue in (("cifar10", 0.99, 4096), ("cifar100", 0.99, 4096), ("tiny_imagenet", 0.996, 16384)):
        settings = resolve("ressl", name).settings
        assert (settings.ema, settings.queue_size, settings.teacher_temperature) == (ema, queue, 0.04)
    imagenet = resolve("ressl", "imagenet")
    assert (imagenet.settings.weak_flip, imagenet.settings.queue_size, imagenet.training.lr) == (0.5, 131072, 0.05)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("teacher_temperature", 0.0, "--teacher-temperature is 0.0; give a number above 0"),
        ("student_temperature", -1.0, "--student-temperature is -1.0; give a number above 0"),
        ("weak_flip", 1.1, "--weak-flip is 1.1; give 0 to 1"),
        ("dim", 0, "--dim is 0; give at least 1"),
    ],
)
def test_bad_settings_are_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})
