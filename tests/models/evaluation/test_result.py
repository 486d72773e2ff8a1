"""Figures from the values of every image, against plain loops."""

import json
import statistics

import numpy as np
import pytest
import torch

from models.evaluation.intervals import over_seeds, wilson
from models.evaluation.result import EvaluationResult, classified, metrics

CLASSES = ("a", "b", "c", "empty")


def scores(seed, number=40, classes=4):
    return torch.randn(number, classes, generator=torch.Generator().manual_seed(seed))


def test_top_1_and_top_5():
    wide, labels = scores(0, 60, 9), torch.arange(60) % 9
    outcome = classified(wide, labels)
    order = np.argsort(-wide.numpy(), 1)
    assert outcome.values["top1"].tolist() == [float(order[i, 0] == i % 9) for i in range(60)]
    assert outcome.values["top5"].tolist() == [float(i % 9 in order[i, :5]) for i in range(60)]
    assert classified(scores(0), torch.arange(40) % 4).values["top5"].mean() == 1  # four classes: all of them


def test_one_outcome_has_wilson_intervals_and_a_table_of_classes():
    labels = torch.arange(40) % 3
    outcome = classified(scores(1), labels, {"note": 3})
    found = json.loads(json.dumps(metrics([outcome], [0], CLASSES)))
    hits = [int(scores(1)[i].argmax()) == i % 3 for i in range(40)]
    assert found["top1"] == pytest.approx(100 * sum(hits) / 40, abs=1e-3) and found["note"] == 3
    assert found["interval"]["top1"] == pytest.approx([100 * x for x in wilson(sum(hits), 40)], abs=1e-3)
    assert "Wilson" in found["interval"]["kind"] and "40 test images" in found["interval"]["kind"]
    for label, row in enumerate(found["per_class"]):
        own = [hit for i, hit in enumerate(hits) if i % 3 == label]
        assert row["class"] == CLASSES[label] and row["images"] == len(own)
        assert row["top1"] == (pytest.approx(100 * sum(own) / len(own), abs=1e-3) if own else None)


def test_several_seeds_have_mean_deviation_and_students_interval():
    labels = torch.arange(40) % 3
    outcomes = [classified(scores(seed), labels, {"lr": seed}) for seed in range(3)]
    found = metrics(outcomes, [0, 1, 2], CLASSES)
    each = [100 * float(outcome.values["top1"].mean()) for outcome in outcomes]
    assert len(set(each)) > 1
    assert found["top1"] == pytest.approx(statistics.mean(each), abs=1e-3)
    assert found["std"]["top1"] == pytest.approx(statistics.stdev(each), abs=1e-3)
    assert found["interval"]["top1"] == pytest.approx(list(over_seeds(each)[2:]), abs=1e-3)
    assert "Student's t over 3 seeds" in found["interval"]["kind"]
    assert [(row["seed"], row["lr"], row["top1"]) for row in found["seeds"]] == [
        (seed, seed, pytest.approx(each[seed], abs=1e-3)) for seed in range(3)
    ]
    expected = np.mean([outcome.values["top1"][::3].mean() for outcome in outcomes])
    assert found["per_class"][0]["top1"] == pytest.approx(100 * expected, abs=1e-3)


def test_no_bound_lies_beyond_what_a_share_can_be():
    few = [
        EvaluationResult(torch.zeros(4, dtype=torch.int64), {"top1": torch.tensor([1.0, 1, 1, right])})
        for right in (0, 1)
    ]
    assert metrics(few, [0, 1], ("a",))["interval"]["top1"] == [0, 100]  # Student's t of two seeds is wide
    precision = torch.tensor([0.0, 0.0, 0.1, 1.0])
    found = metrics([EvaluationResult(torch.zeros(4, dtype=torch.int64), {"map": precision})], [0], ("a",))
    assert found["interval"]["map"][0] == 0


def test_what_is_no_hit_has_a_normal_interval():
    values = torch.tensor([0.2, 0.4, 0.7, 0.8], dtype=torch.float64)
    found = metrics([EvaluationResult(torch.zeros(4, dtype=torch.int64), {"map": values})], [0], ("a",))
    half = 1.959964 * float(values.std()) / 2
    assert found["interval"]["map"] == pytest.approx([52.5 - 100 * half, 52.5 + 100 * half], abs=1e-3)
