"""The plan: the same batches in any order, on any number of processes, and a fresh order each epoch."""

from dataclasses import fields, replace

import numpy as np
import pytest

from pipelines.plan.pairing import Pairing, same_class_rates
from pipelines.plan.plan import Plan
from pipelines.plan.views import View, contrastive

NUMBER = 103
VIEWS = (contrastive(32), View(24, (0.5, 1.0)))
HEIGHTS, WIDTHS = np.arange(100, 100 + NUMBER), np.arange(100 + NUMBER, 100, -1)


def plan(**keywords):
    return Plan(HEIGHTS, WIDTHS, VIEWS, **{"batch_size": 8, "seed": 5} | keywords)


def pairing(probability=1.0, count=None):
    """Sample i may be paired with i + 1, i + 2 and i + 3, around the end; sample 0 with nobody."""
    counts = np.full(NUMBER, 3, dtype=np.int32) if count is None else count
    counts[0] = 0
    pool = np.concatenate([(i + 1 + np.arange(counts[i])) % NUMBER for i in range(NUMBER)]).astype(np.int32)
    return Pairing(pool, np.cumsum(counts, dtype=np.int64) - counts, counts, probability, 1.0)


def equal(first, second):
    return all(np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))


def test_every_index_comes_once_an_epoch_and_the_order_changes():
    everything = plan(drop_last=False)
    orders = [np.concatenate([everything.batch(e, s).source_S for s in range(everything.steps)]) for e in range(3)]
    for order in orders:
        assert sorted(order) == list(range(NUMBER))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], plan(seed=6, drop_last=False).order(0, np.arange(NUMBER)))


def test_a_batch_does_not_depend_on_what_was_asked_before():
    asked_late = plan()
    for step in range(5):
        asked_late.batch(0, step)
    assert equal(asked_late.batch(2, 3, pairing()), plan().batch(2, 3, pairing()))


def test_a_samples_views_do_not_depend_on_the_batch_size():
    small, large = plan(batch_size=5), plan(batch_size=50)
    one = small.batch(1, 7)  # positions 35 to 39, which lie in the large plan's first batch
    other = large.batch(1, 0)
    assert np.array_equal(one.source_S, other.source_S[35:40])
    assert np.array_equal(one.crop_VS4, other.crop_VS4[:, 35:40])
    assert np.array_equal(one.photometric_VSP, other.photometric_VSP[:, 35:40])


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batch_of_one(world):
    whole = plan().batch(0, 2, pairing())
    parts = [plan(rank=rank, world=world).batch(0, 2, pairing()) for rank in range(world)]
    assert len({part.seed for part in parts} | {whole.seed}) == 1
    for rank, part in enumerate(parts):
        rows = np.arange(rank, 8, world)
        both = np.concatenate([rows, 8 + rows])  # anchors, then partners
        assert np.array_equal(part.source_S, whole.source_S[both])
        assert np.array_equal(part.crop_VS4, whole.crop_VS4[:, both])
        assert np.array_equal(part.flip_VS, whole.flip_VS[:, both])
        assert np.array_equal(part.photometric_VSP, whole.photometric_VSP[:, both])
        assert np.array_equal(part.box_B4, whole.box_B4[rows])


def test_views_of_a_sample_and_epochs_differ():
    whole = Plan(HEIGHTS, WIDTHS, (contrastive(32), contrastive(32)), NUMBER)
    first, second = whole.batch(0, 0), whole.batch(1, 0)
    assert (first.crop_VS4[0] != first.crop_VS4[1]).any(1).mean() > 0.95
    order = np.argsort(first.source_S), np.argsort(second.source_S)
    assert (first.crop_VS4[0][order[0]] != second.crop_VS4[0][order[1]]).any(1).mean() > 0.95


def test_partners_are_drawn_uniformly_from_the_candidates():
    pairs = pairing()
    whole = plan(batch_size=NUMBER)
    drawn = []
    for epoch in range(300):
        batch = whole.batch(epoch, 0, pairs)
        anchor, partner = np.split(batch.source_S, 2)
        alone = anchor == 0
        assert (partner[alone] == 0).all() and (batch.box_B4[alone] == 0).all()
        drawn.append((partner - anchor)[~alone] % NUMBER)
    counts = np.bincount(np.concatenate(drawn), minlength=NUMBER)
    assert counts[:1].sum() == 0 and counts[4:].sum() == 0
    assert np.abs(counts[1:4] / counts.sum() - 1 / 3).max() < 0.01


def test_a_partner_is_seen_differently_by_two_anchors():
    counts = np.full(NUMBER, 1, dtype=np.int32)
    everyone_with_7 = Pairing(np.array([7], np.int32), np.zeros(NUMBER, np.int64), counts, 1.0, 1.0)
    batch = plan().batch(0, 0, everyone_with_7)
    assert (batch.source_S[8:] == 7).all()
    assert len(np.unique(batch.crop_VS4[0, 8:], axis=0)) > 4


def test_steps_mix_with_their_probability_and_lambda_is_beta():
    pairs = pairing(probability=0.8)
    mixing = [plan().batch(epoch, step, pairs).box_B4 for epoch in range(60) for step in range(12)]
    share = np.mean([box is not None for box in mixing])
    assert abs(share - 0.8) < 0.05
    assert all(plan().batch(0, step, pairing(probability=0.0)).box_B4 is None for step in range(5))
    boxes = np.stack([box[np.abs(box).sum(1) > 0][0] for box in mixing if box is not None and np.abs(box).sum() > 0])
    assert (boxes >= 0).all() and (boxes <= 1).all()
    assert (boxes[:, 2] >= boxes[:, 0]).all() and (boxes[:, 3] >= boxes[:, 1]).all()
    inside = ((boxes[:, 2:] < 1) & (boxes[:, :2] > 0)).all(1)  # not clipped: the side is sqrt(1 - lambda)
    sides = (boxes[:, 2:] - boxes[:, :2])[inside]
    assert np.allclose(sides[:, 0], sides[:, 1], atol=1e-5)


def test_one_step_has_one_rectangle():
    box = plan().batch(0, 1, pairing()).box_B4
    kept = box[np.abs(box).sum(1) > 0]
    assert (kept == kept[0]).all()


def test_subset_and_short_last_batch():
    subset = np.array([3, 50, 99, 7, 8])
    chosen = plan(subset=subset, batch_size=2, shuffle=False, drop_last=False)
    assert [chosen.batch(0, step).source_S.tolist() for step in range(chosen.steps)] == [[3, 50], [99, 7], [8]]
    parts = [
        plan(subset=subset, batch_size=2, shuffle=False, drop_last=False, rank=r, world=2).batch(0, 2) for r in (0, 1)
    ]
    assert [part.source_S.tolist() for part in parts] == [[8], []]


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_is_filled_up_with_its_first_samples_in_new_views(world):
    """MNCL's epochs: 196 steps of 256 for 50,000 images; here 13 of 8 for 103."""
    parts = [plan(fill_to=8, rank=rank, world=world) for rank in range(world)]
    assert [part.steps for part in parts] == [13] * world
    first, last = (
        [np.stack([part.batch(2, step).source_S for part in parts], 1).ravel() for step in steps]
        for steps in ((0,), range(13))
    )
    assert np.array_equal(np.concatenate(last), np.append(parts[0].order(2, np.arange(103)), first[0][:1]))
    again, before = parts[-1].batch(2, 12), parts[0].batch(2, 0)  # the last process's last sample is image 0 again
    assert again.source_S[-1] == before.source_S[0]
    assert not np.array_equal(again.crop_VS4[:, -1], before.crop_VS4[:, 0])
    assert equal(plan(fill_to=8).batch(2, 3), plan().batch(2, 3))  # nothing else changes
    assert plan(fill_to=16, batch_size=4).steps == 28  # micro-batches of steps of 16


def test_every_time_that_a_sample_fills_up_it_has_new_views_and_so_has_its_partner():
    """100 images of one candidate each, in a batch of 256: image 0 is at the positions 0, 100 and 200."""
    filled = Plan(np.full(100, 40), np.full(100, 40), (View(16),), 256, shuffle=False, drop_last=False, fill_to=256)
    ring = Pairing(np.roll(np.arange(100, dtype=np.int32), -1), np.arange(100), np.ones(100, np.int32), 1.0, 1.0)
    mixed = filled.batch(0, 0, ring)
    assert mixed.source_S[[0, 100, 200, 256, 356, 456]].tolist() == [0, 0, 0, 1, 1, 1]
    crops = mixed.crop_VS4[0, [0, 100, 200, 1, 256, 356, 456]]
    assert len(np.unique(crops, axis=0)) == 7


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": 200}, "103 images, fewer than one batch of 200"),
        ({"batch_size": 9, "world": 2}, "does not divide over 2 processes"),
        ({"batch_size": 0}, "batch size 0"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
    ],
)
def test_bad_requests_are_refused_in_one_line(keywords, message):
    with pytest.raises(ValueError, match=message) as error:
        plan(**keywords)
    assert "\n" not in str(error.value)


def test_same_class_rates_equal_a_loop():
    labels = np.random.default_rng(0).integers(-1, 3, NUMBER)
    counts = np.random.default_rng(1).integers(0, 4, NUMBER).astype(np.int32)
    pairs = pairing(count=counts)
    rates = same_class_rates(pairs, labels)
    shares = []
    for i in range(NUMBER):
        partners = labels[pairs.pool[pairs.start[i] : pairs.start[i] + pairs.count[i]]]
        if labels[i] >= 0 and (partners >= 0).any():
            shares.append(np.mean(partners[partners >= 0] == labels[i]))
    assert rates["selected"] == pytest.approx(np.mean(shares))
    known = labels[labels >= 0]
    same = [np.mean(np.delete(known, i) == label) for i, label in enumerate(known)]
    assert rates["chance"] == pytest.approx(np.mean(same))
    assert rates["paired"] == pytest.approx(np.mean(pairs.count > 0))
    neighbors = np.random.default_rng(2).integers(0, NUMBER, (NUMBER, 4)).astype(np.int32)
    pairs_of_labels = [(labels[i], labels[j]) for i in range(NUMBER) for j in neighbors[i]]
    both = [first == second for first, second in pairs_of_labels if min(first, second) >= 0]
    found = same_class_rates(replace(pairs, neighbors=neighbors), labels)
    assert found["neighbors"] == pytest.approx(np.mean(both))
    nobody = same_class_rates(replace(pairs, neighbors=neighbors), np.full(NUMBER, -1))
    assert (nobody["selected"], nobody["neighbors"]) == (0, 0)
