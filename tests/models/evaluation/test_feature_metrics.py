"""Quality monitors against loops over pairs and keys, on one and on several processes."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from models.evaluation.feature_metrics import alignment, queue_age, soft_label_entropy, teacher_entropy, uniformity
from models.queue import KeyQueue


def rows(count, dim, seed):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_the_mean_squared_distance_of_unit_rows():
    first, second = rows(7, 5, 0), rows(7, 5, 1)
    distances = [
        float((normalize(a, dim=0) - normalize(b, dim=0)).norm() ** 2) for a, b in zip(first, second, strict=True)
    ]
    assert alignment(first, second) == pytest.approx(sum(distances) / 7, rel=1e-6)
    assert alignment(first, 3 * first) == pytest.approx(0, abs=1e-12) and alignment(first, -first) == pytest.approx(4)


@pytest.mark.parametrize("count", [2, 9, 700])  # the last: more than a chunk
def test_uniformity_is_the_mean_potential_of_different_rows(count):
    features = rows(count, 6, 2)
    unit = normalize(features.double())
    potential = torch.exp(-2 * torch.cdist(unit, unit) ** 2)
    naive = math.log(float(potential[~torch.eye(count, dtype=torch.bool)].mean()))
    assert uniformity(features) == pytest.approx(naive, rel=1e-6)


def test_uniformity_at_its_ends():
    assert uniformity(torch.ones(50, 8)) == pytest.approx(0, abs=1e-9)
    assert -4 < uniformity(rows(2000, 512, 3)) < -3.9
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    with pytest.raises(ValueError, match="uniformity of 1 rows; give at least 2"):
        uniformity(torch.ones(1, 8))


def naive_entropy(query, keys, temperature):
    """-sum p log p over keys, one at a time."""
    unit, *units = normalize(torch.stack([query, *keys]).double(), dim=1).tolist()
    logits = [sum(a * b for a, b in zip(unit, key, strict=True)) / temperature for key in units]
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * math.log(share) for share in shares if share > 0)


@pytest.mark.parametrize("temperature", [0.04, 1.0])
@pytest.mark.parametrize("cut", [0, 13, 1500])
def test_entropy_of_a_soft_label_in_pieces(temperature, cut):
    queries, keys = rows(5, 8, 4), rows(5000, 8, 5)
    naive = torch.tensor([naive_entropy(query, keys, temperature) for query in queries])
    found = soft_label_entropy(queries, [keys[:cut], keys[cut:]], temperature)
    torch.testing.assert_close(found, naive.float(), rtol=1e-4, atol=1e-4)


def test_entropy_at_its_ends():
    same = torch.ones(30, 4)
    assert float(soft_label_entropy(rows(1, 4, 6), [same], 0.1)) == pytest.approx(math.log(30), abs=1e-5)
    apart = torch.eye(4)
    assert float(soft_label_entropy(apart[:1], [apart], 0.01)) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="temperature is 0; give more than 0"):
        soft_label_entropy(same, [same], 0)


@pytest.mark.parametrize("pushed", [[40], [200], [200, 30], [200, 200, 7], [199]])
def test_the_last_soft_labels_are_read_off_the_queue(pushed):
    """The newest keys against the others, wherever the pointer stands."""
    queue = KeyQueue(200, 8, count=2)
    order = [[row.clone() for row in queue.keys(i)] for i in range(2)]  # oldest first
    for step, count in enumerate(pushed):
        batches = [rows(count, 8, 10 * step + i) for i in range(2)]
        queue.push(*batches)
        for kept, batch in zip(order, batches, strict=True):
            kept[:] = (kept + list(batch))[-200:]
    for number, kept in enumerate(order):
        naive = [naive_entropy(key, kept[:-64], 0.1) for key in kept[-64:]]
        assert teacher_entropy(queue, 0.1, number) == pytest.approx(sum(naive) / 64, rel=1e-4)


def test_queue_age_is_in_steps():
    queue = KeyQueue(100, 4)
    assert queue_age(queue, 32) == 0
    ages = []
    for step in range(6):
        queue.push(rows(32, 4, step))
        ages.append(queue_age(queue, 32))
    assert ages == [1, 2, 3, 4, 4, 4]  # the fourth batch pushes out the first's oldest 28 keys
