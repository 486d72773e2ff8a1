"""MSVQ's step against the specification written out, and its traps.

Traps of the specification that have no test here:
 - T5 the interleaved groups of split batch norm: tests/models/networks/test_norm.py.
 - T12 evaluation reads the raw backbone of the student, never the head: test_eval.py and test_encoder.py.
 - T14 is about cost, for the benchmark. T15 is about the conversion of grey images: tests/test_convert_*.
"""

import copy
import math

import pytest
import torch
from torch.nn.functional import normalize

from models import build, resolve
from models.methods.momentum import shuffled_views
from models.methods.msvq import Settings, three_soft_labels
from models.networks.norm import batch_permutation
from models.training.optim import build_optimizer, cosine_schedule
from pipelines.batch import Batch
from tests.support.small_methods import (
    SMALL,
    batch_for,
    close,
    cross_entropy,
    gradients,
    small,
    unshuffled,
)


def naive(student, second, third, fourth, queue1, queue2, student_t, teacher_t):
    """The equation of a.3, one sample and one key at a time, in float64."""
    total = 0.0
    for z1, z2, z3, z4 in zip(student, second, third, fourth, strict=True):
        total = total + cross_entropy(z1, z2, queue1, student_t, teacher_t) / 3
        total = total + cross_entropy(z1, z3, queue1, student_t, teacher_t) / 3
        total = total + cross_entropy(z1, z4, queue2, student_t, teacher_t) / 3
    return total / len(student)


def test_equation_equals_the_naive_reference():
    exact = [torch.randn(n, 16, dtype=torch.float64).requires_grad_() for n in (6, 6, 6, 6, 64, 64)]
    single = [t.detach().float().requires_grad_() for t in exact]
    reference = naive(*exact, 0.1, 0.04)
    z1, z2, z3, z4, q1, q2 = single
    value = torch.stack(three_soft_labels(z1, (z2, z3), z4, q1, q2, 0.1, 0.04)).mean()
    assert value.item() == pytest.approx(reference.item(), rel=1e-6)
    value.backward()
    reference.backward()
    assert close([z1.grad], [exact[0].grad], 1e-6)
    assert all(t.grad is None for t in single[1:])


def in_the_authors_order(method, batches, lr):
    """a.3 of the specification for one process: EMA, forward, queues, SGD; written on the method's own weights."""
    losses = []
    teachers = ((method.teacher, method.settings.ema), (method.second_teacher, method.settings.second_ema))
    queues = [method.queue.keys(0), method.queue.keys(1)]
    for step, batch in enumerate(batches):
        with torch.no_grad():
            for teacher, m in teachers:
                for mine, theirs in zip(teacher.parameters(), method.student.parameters(), strict=True):
                    mine.mul_(m).add_((1 - m) * theirs)
        z1 = method.student(batch.views[0])
        z2, z3 = (unshuffled(method.teacher, batch.views[i - 1], batch.seed, i) for i in (2, 3))
        z4 = unshuffled(method.second_teacher, batch.views[3], batch.seed, 4)
        loss = naive(z1, z2, z3, z4, *queues, 0.1, 0.04)
        for queue, key in zip(queues, (z2, z4), strict=True):
            rows = torch.arange(step * len(key), (step + 1) * len(key)) % len(queue)
            queue[rows] = normalize(key)
        method.student.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.sub_(lr * parameter.grad)
        losses.append(loss.item())
    return losses, queues


@pytest.mark.parametrize("splits", [1, 2])
def test_steps_equal_the_authors_order(splits):
    """T1: EMA before their forward is EMA after our step; T2 and T3: which keys enter which queue, and when."""
    method = small("msvq", bn_splits=splits, ema=0.9, second_ema=0.5, queue_size=20).double()
    batches = [batch_for(method, seed=s) for s in range(4)]
    expected, queues = in_the_authors_order(copy.deepcopy(method), batches, 0.1)
    losses = []
    for step, batch in enumerate(batches):
        total = method(batch).total
        method.zero_grad()
        total.backward()
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.sub_(0.1 * parameter.grad)
        method.after_step(step)
        losses.append(total.item())
    assert losses == pytest.approx(expected, rel=1e-5)  # the queue keeps float32
    for number, queue in enumerate(queues):
        torch.testing.assert_close(method.queue.keys(number), queue, rtol=1e-4, atol=1e-5)
    assert method.queue.pointer.item() == 4 * 8 % 20


def test_gradient_equals_the_specification():
    method = small("msvq", bn_splits=2).double()
    reference, batch = copy.deepcopy(method), batch_for(method)
    method(batch).total.backward()
    in_the_authors_order(reference, [batch], 0.0)
    assert close(gradients(method), gradients(reference), 1e-10)


def test_each_teacher_is_read_against_its_own_queue():
    """T3: the bug of 2023 let teacher 2 use queue 1."""
    method, other = small("msvq"), small("msvq")
    other.queue.rows[1] = torch.randn_like(other.queue.rows[1])
    first, second = method(batch_for(method)).terms, other(batch_for(other)).terms
    assert [first[name] == second[name] for name in first] == [True, True, False]
    batch = batch_for(method)
    third = Batch((*batch.views[:2], batch.views[2] + 1, batch.views[3]), batch.index, batch.label, batch.seed)
    kept = [small("msvq"), small("msvq")]
    for method, given in zip(kept, (batch, third), strict=True):
        method(given)
    assert torch.equal(kept[0].queue.rows, kept[1].queue.rows)  # T2: view 3 leaves nothing in a queue


def test_teachers_stay_in_train_mode_and_their_buffers_do_not_follow():
    """T1."""
    method = small("msvq")
    method(batch_for(method))
    assert method.teacher.training and method.second_teacher.training
    before = [b.clone() for b in method.teacher.buffers()]
    for buffer in method.student.buffers():
        buffer.add_(1)
    method.after_step(0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.teacher.buffers(), strict=True))


def test_views_of_teacher_one_keep_statistics_and_shuffles_of_their_own():
    """T5: one pass with split norms, and one pass a view with plain ones, are what each view alone would give."""
    for splits in (1, 2, 4):
        method = small("msvq", bn_splits=splits).double()
        views = batch_for(method).views[1:3]
        together = shuffled_views(method.teacher, views, [batch_permutation(len(views[0]), 0, key) for key in (2, 3)])
        for number, (view, output) in enumerate(zip(views, together, strict=True)):
            torch.testing.assert_close(output, unshuffled(method.teacher, view, 0, number + 2))


def test_views_are_one_strong_and_three_weak_ones():
    """T4."""
    strong, *weak = small("msvq").views
    assert (strong.flip, strong.jitter_p, strong.grayscale_p, strong.blur_p) == (0.5, 0.8, 0.2, 0.5)
    assert len(weak) == 3
    for view in weak:
        assert view.flip == 0.9 and view.jitter_p == view.grayscale_p == view.blur_p == 0
        assert view.scale == strong.scale == (0.2, 1.0)


def test_temperatures_of_the_student_stay_and_there_is_no_own_column():
    """T6: a student that equals the teachers still pays the entropy of the labels, over K columns."""
    assert all(resolve("msvq", name).settings.student_temperature == 0.1 for name in ("cifar10", "cifar100", "stl10"))
    z, queue = torch.randn(5, 8), torch.randn(30, 8)
    losses = three_soft_labels(z, (z, z), z, queue, queue, 0.1, 0.1)
    p = torch.softmax(normalize(z) @ normalize(queue).T / 0.1, 1)
    for loss in losses:
        torch.testing.assert_close(loss, -(p * p.log()).sum(1))


def test_the_first_convolution_starts_at_torchs_default():
    """T7."""
    weight = small("msvq", width=64).student.backbone.conv1.weight
    bound = 1 / math.sqrt(27)
    assert weight.abs().max() <= bound and weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    he = small("msvq", width=64, default_conv1=False).student.backbone.conv1.weight
    assert he.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.05)


def test_optimizer_decays_everything_trained_and_starts_at_zero():
    """T8 and T9."""
    method, training = small("msvq"), resolve("msvq", "cifar10").training
    optimizer = build_optimizer(
        method.named_parameters(), training.optimizer, training.lr, training.momentum, training.weight_decay,
        exclude_norm_and_bias=not training.decay_norm_and_bias,
    )  # fmt: skip
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 5e-4 and len(group["params"]) == len(list(method.student.parameters()))
    assert cosine_schedule(0, 195, 200, training.warmup_epochs) == 0
    assert training.lr == 0.06


def test_queues_and_teachers_are_in_the_checkpoint():
    """T10."""
    method, fresh = small("msvq"), small("msvq")
    method(batch_for(method))
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(fresh.queue.rows, method.queue.rows) and fresh.queue.pointer == 8
    assert any(name.startswith("second_teacher.") for name in method.state_dict())


def test_recipes_are_the_published_ones():
    """T11: STL-10 is evaluated at 96 pixels and trained at 64."""
    table = {
        "cifar10": (0.99, 0.95, 0.04, 4096, "small", 32, 32),
        "cifar100": (0.99, 0.93, 0.03, 4096, "small", 32, 32),
        "stl10": (0.996, 0.99, 0.04, 16384, "small_pool", 64, 96),
        "tiny_imagenet": (0.996, 0.99, 0.04, 16384, "small_pool", 64, 64),
    }
    for name, values in table.items():
        recipe = resolve("msvq", name)
        s, t = recipe.settings, recipe.training
        found = (s.ema, s.second_ema, s.teacher_temperature, s.queue_size, t.stem, s.crop_size, t.image_size)
        assert found == values
        assert (t.epochs, t.batch_size, t.bn_splits, s.hidden, s.dim) == (200, 256, 8, 2048, 128)
        assert {recipe.sources[field] for field in ("ema", "second_ema", "queue_size")} == {"code"}


def test_labels_change_nothing():
    """T13: unlabelled samples have label -1."""
    totals = [small("msvq")(batch_for(small("msvq"), label=label)).total for label in (-1, 7)]
    assert totals[0] == totals[1]


def test_first_losses():
    """Near ln K: a few tenths above where student and label are unrelated, below it by as much as they agree."""
    torch.manual_seed(0)
    queue, rows = torch.randn(4096, 128), [torch.randn(16, 128) for _ in range(4)]
    unrelated = torch.stack(three_soft_labels(rows[0], (rows[1], rows[2]), rows[3], queue, queue, 0.1, 0.04)).mean()
    assert math.log(4096) < unrelated < math.log(4096) + 0.8
    method = build("msvq", "cifar10", **(SMALL | {"queue_size": 64, "dim": 128, "hidden": 64}))
    for step in range(9):  # untrained: all keys that fill the queue are alike
        loss = method(batch_for(method, seed=step)).total.item()
    assert loss == pytest.approx(math.log(64), abs=0.3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("teacher_temperature", 0.0, "--teacher-temperature is 0.0; give a number above 0"),
        ("student_temperature", 0.0, "--student-temperature is 0.0; give a number above 0"),
        ("second_ema", -0.1, "--second-ema is -0.1; give 0 to 1"),
        ("weak_flip", 9.0, "--weak-flip is 9.0; give 0 to 1"),
        ("crop_size", 4, "--crop-size is 4; give at least 8"),
    ],
)
def test_bad_settings_are_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})


def test_a_batch_that_the_groups_do_not_divide_is_one_line():
    with pytest.raises(ValueError, match="does not split into 8 batch-norm groups"):
        resolve("msvq", "cifar10", batch_size=250)
    with pytest.raises(ValueError, match="less than a batch"):
        Settings(queue_size=100).check(resolve("msvq", "cifar10").training)
