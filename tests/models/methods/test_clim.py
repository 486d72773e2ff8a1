"""CLIM's step against the specification written out, and its traps.

Traps and where they are tested: 1 no leak by file order, 2 one space for neighbours and centres, 8 empty clusters:
test_neighbors.py, test_clim_selection.py. 3 relative boxes, 7 lambda is the kept share: test_mixture.py. 4 clean keys
and anchors in the queue, 5 negatives of the key's resolution: here. 6 one box for a global batch: test_plan.py. 9 every
sample once: test_distributed.py. 10 the evaluation view of the features: test_train.py trains with it. 11 train mode
afterwards: test_distributed.py. 12 renewed partners: here. 13 is about cost, 14 about the linear probe's rate, which is
another here: the protocol's id carries it.
"""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from models import build
from models.losses.mixture import cutmix
from models.methods.clim import Settings
from models.search.sharded_features import LocalFeatures
from pipelines.batch import Batch

SMALL = {"width": 8, "resolutions": (16, 12), "queue_size": 40, "dim": 16, "bn_splits": 1, "batch_size": 8}


def method_of(**overrides):
    torch.manual_seed(0)
    return build("clim", "cifar10", **(SMALL | overrides))


def batch_of(mixed=True, count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def views():
        return tuple(torch.randn(count, 3, s, s, generator=generator) for s in (16, 16, 12, 12))

    index = torch.arange(count)
    if not mixed:
        return Batch(views(), index, index, seed)
    box = torch.tensor([0.25, 0.1, 0.8, 0.7]).repeat(count, 1)
    box[0] = 0  # the first anchor trains alone
    return Batch(views(), index, index, seed, Batch(views(), index, index, seed), box)


def naive_loss(method, batch):
    """The specification's formula in float64, one sample, pair and negative at a time. Moves batch statistics."""
    tau = method.settings.temperature
    queries, shares = [], []
    for r in (0, 2):
        view, kept = batch.views[r], torch.ones(len(batch.index))
        if batch.partner is not None:
            view, kept = cutmix(view, batch.partner.views[r], batch.box)
        queries.append(normalize(method.student(view).double()))
        shares.append(kept.double())
    first = [normalize(method.teacher(batch.views[s]).double()) for s in (1, 3)]
    second = (
        first if batch.partner is None else [normalize(method.teacher(batch.partner.views[s]).double()) for s in (1, 3)]
    )
    queues = [method.queue.keys(n).double() for n in (0, 1)]

    def contrast(query, key, queue):
        positive = torch.exp(query @ key / tau)
        return -torch.log(positive / (positive + sum(torch.exp(query @ row / tau) for row in queue)))

    total = 0.0
    for r in range(2):
        for s in range(2):
            for n in range(len(batch.index)):
                share = shares[r][n]
                total += share * contrast(queries[r][n], first[s][n], queues[s]) / 4
                total += (1 - share) * contrast(queries[r][n], second[s][n], queues[s]) / 4
    return total / len(batch.index)


@pytest.mark.parametrize("mixed", [True, False])
def test_loss_and_gradient_equal_the_specification(mixed):
    method, batch = method_of(), batch_of(mixed)
    reference = copy.deepcopy(method)
    ours, theirs = method(batch).total, naive_loss(reference, batch)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    ours.backward()
    theirs.backward()
    for (name, own), other in zip(method.student.named_parameters(), reference.student.parameters(), strict=True):
        assert (own.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-7, name


def test_only_anchor_keys_enter_the_queues_after_the_logits():
    method, batch = method_of(), batch_of()
    reference = copy.deepcopy(method)
    method(batch)
    assert method.queue.pointer.item() == 8
    for number, view in enumerate(batch.views[1::2]):
        keys = normalize(reference.teacher(view))
        assert torch.allclose(method.queue.keys(number)[:8], keys, atol=1e-5)
        assert torch.equal(method.queue.keys(number)[8:], reference.queue.keys(number)[8:])


def test_an_anchor_without_partner_has_the_loss_of_a_plain_step():
    method, batch = method_of(), batch_of()
    alone = Batch(batch.views, batch.index, batch.label, 0, batch.partner, torch.zeros(8, 4))
    plain = Batch(batch.views, batch.index, batch.label, 0)
    first, second = (copy.deepcopy(method)(b).total.item() for b in (alone, plain))
    assert first == pytest.approx(second, rel=1e-6)


def test_resolutions_are_compared_in_every_pair():
    """With one resolution's queue made useless to it, only the pairs of the other change."""
    method, batch = method_of(), batch_of(mixed=False)
    before = copy.deepcopy(method)(batch).total.item()
    method.queue.rows[1] = method.queue.rows[1].flip(0)  # same keys, other order: a sum over the queue stays
    assert copy.deepcopy(method)(batch).total.item() == pytest.approx(before, rel=1e-6)
    method.queue.rows[1] = method.queue.rows[0]
    assert copy.deepcopy(method)(batch).total.item() != pytest.approx(before, rel=1e-5)


def test_partners_are_renewed_on_schedule():
    method = method_of(start_epoch=2, refresh_epochs=3, neighbors=3, clusters=4, whiten=0)
    calls = []

    def extract(network):
        assert network is method.student.backbone
        calls.append(1)
        return LocalFeatures.single_process(torch.randn(60, 32))

    renewed = []
    for epoch in range(9):
        before = len(calls)
        method.before_epoch(epoch, extract)
        renewed.append(len(calls) > before)
    assert renewed == [False, False, True, False, False, True, False, False, True]
    assert method.pairing is not None and len(method.pairing.count) == 60


def test_three_resolutions_train():
    method = method_of(resolutions=(24, 16, 12))
    assert [view.size for view in method.views] == [24, 24, 16, 16, 12, 12]
    views = tuple(torch.randn(8, 3, view.size, view.size) for view in method.views)
    assert torch.isfinite(method(Batch(views, torch.arange(8), torch.arange(8), 0)).total)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rule", "window", "--rule is 'window'; take one of paper, snapshot"),
        ("temperature", 0.0, "--temperature is 0.0; give a number above 0"),
        ("resolutions", (), "give at least one side"),
        ("ema", 1.5, "--ema is 1.5; give 0 to 1"),
        ("clusters", 0, "--clusters is 0; give at least 1"),
    ],
)
def test_bad_settings_are_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})


def test_a_queue_smaller_than_the_batch_is_refused():
    with pytest.raises(ValueError, match="queue_size is 100, less than a batch of 256"):
        build("clim", "cifar10", queue_size=100)
