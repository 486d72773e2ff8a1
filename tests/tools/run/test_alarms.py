"""Warnings: a jump of the loss and a dead queue are told once, and nothing else is."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from models.evaluation.collapse import effective_rank, feature_spread
from models.method import Method
from models.queue import KeyQueue
from tests.support.states import run_state
from tools.run.alarms import Alarms, deviations


class Queued(Method):
    def __init__(self, count=1):
        super().__init__()
        self.queue = KeyQueue(32, 8, count)


def fresh(method=None):
    return Alarms(method or nn.Identity(), run_state())


def test_a_jump_of_the_loss_is_told_once():
    alarms, rng = fresh(), np.random.default_rng(0)
    losses = list(5 + 0.1 * rng.standard_normal(200))
    losses[100:103] = [9.0, 9.5, 9.2]
    found = {step: alarms.check(loss) for step, loss in enumerate(losses)}
    assert [step for step, (fields, _) in found.items() if fields] == [100, 101, 102]
    assert [step for step, (_, lines) in found.items() if lines] == [100]
    assert found[100][1][0].startswith("WARNING: the loss jumped to 9.0000, ")
    naive = np.median(losses[50:100])
    scatter = 1.4826 * np.median(np.abs(np.array(losses[50:100]) - naive))
    assert found[100][0]["loss_spike"] == pytest.approx((9 - naive) / scatter, abs=0.06)


def test_a_falling_a_constant_and_a_short_history_are_no_jump():
    assert not any(fresh().check(loss)[0] for loss in (1.0, 100.0, 1.0))
    alarms = fresh()
    assert not any(alarms.check(loss)[0] for loss in [*np.linspace(8, 2, 150), 0.1, -5.0])
    assert deviations(2.05, [2.0] * 30) < 10 < deviations(2.25, [2.0] * 30)  # 10 % where nothing scatters


@pytest.mark.parametrize("count", [1, 3])
def test_a_queue_of_one_vector_is_told_when_it_is_full(count):
    method = Queued(count)
    alarms = fresh(method)
    key = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    noise = [torch.randn(32, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    method.queue.push(*[key.expand(31, 8) + 0.01 * part[:31] for part in noise])
    assert alarms.check(1.0) == ({}, [])  # not full yet
    method.queue.push(*[key + 0.01 * part[:1] for part in noise])
    fields, lines = alarms.check(1.0)
    rows = normalize(method.queue.rows.double(), dim=-1)
    pairs = [float(a @ b) for i, a in enumerate(rows[0]) for j, b in enumerate(rows[0]) if i != j]
    assert method.queue.mean_cosine() >= np.mean(pairs) - 1e-6
    if count == 1:
        assert fields["queue_cosine"] == pytest.approx(np.mean(pairs), abs=1e-4)
    assert lines == [f"WARNING: the keys in queue are nearly one (mean cosine {fields['queue_cosine']:.4f}): collapsed"]
    assert alarms.check(1.0)[0] and not alarms.check(1.0)[1]  # told once
    method.queue.push(*noise)
    assert alarms.check(1.0) == ({}, []) and abs(method.queue.mean_cosine()) < 0.2


def quality(rank, spread):
    return {"feature_rank": rank, "feature_spread": spread}


def test_a_collapse_is_told_once_until_it_ends():
    alarms = fresh()
    alarms._state.step = 5
    rows = [(4.1, 0.3), (1.49, 0.3), (1.2, 0.0), (4.1, 0.3), (60.0, 0.0099), (60.0, 0.02)]
    lines = [alarms.check_features(quality(*row)) for row in rows]
    assert [bool(line) for line in lines] == [False, True, False, False, True, False]
    assert lines[1][0].startswith("WARNING: the features of all images are nearly the same (effective rank 1.49, ")


def test_an_untrained_network_may_have_little_spread():
    alarms = fresh()
    assert alarms.check_features(quality(6.0, 0.005)) == []
    [line] = alarms.check_features(quality(1.01, 0.005))
    assert line.startswith("WARNING: before training, the features of all images")


def test_the_features_of_collapsed_networks_raise_it():
    """Features of one vector, alone, scaled, and with noise, by the definitions of the monitor."""
    generator = torch.Generator().manual_seed(0)
    vector, noise = torch.randn(1, 128, generator=generator), torch.randn(256, 128, generator=generator)
    length = torch.rand(256, 1, generator=generator) + 0.5
    for features in (vector.expand(256, 128), length * vector, vector + 5e-4 * noise, torch.zeros(256, 128)):
        alarms = fresh()
        alarms._state.step = 1
        assert alarms.check_features(quality(effective_rank(features), feature_spread(features)))
    alarms = fresh()
    alarms._state.step = 1
    assert not alarms.check_features(quality(effective_rank(noise), feature_spread(noise)))
