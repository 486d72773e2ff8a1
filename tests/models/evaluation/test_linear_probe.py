"""The probe from images to an outcome: cached and augmented, sweeps, what chooses among their rates, two processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import gloo

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from models.distributed import world
from models.evaluation.feature_extractor import FeatureExtractor
from models.evaluation.features import extract
from models.evaluation.linear_heads import train_on_cached
from models.evaluation.linear_probe import Probe
from models.evaluation.protocols.linear import LinearProtocol
from models.networks.backbones import build_backbone
from pipelines import make_loader, open_dataset
from pipelines.plan.views import evaluation
from tests.support.datasets import photos

SWEEP = LinearProtocol(lr=(0.001, 0.1, 3.0), epochs=3, batch_size=10, held_out=0.25)
BANK, QUERIES = np.arange(48), np.arange(21)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    return photos(folder / "train", each=16), photos(folder / "held_out", each=7)


def network():
    torch.manual_seed(0)
    return build_backbone("resnet18", width=4, stem="small")


def probe(sets, protocol, chosen=None):
    rank, processes = world()
    passes = FeatureExtractor(evaluation(16), 12, {"rank": rank, "world": processes, "threads": 1})
    return Probe(network(), passes, *sets, protocol, chosen or {0: BANK}, QUERIES)


def features(dataset):
    with make_loader(dataset, [evaluation(16)], 48, shuffle=False, drop_last=False, threads=1) as loader:
        return extract(network(), loader)


def test_cached_is_training_on_extracted_features(sets):
    result = probe(sets, replace(SWEEP, lr=(0.1,))).result(0)
    heads = train_on_cached(features(sets[0]), torch.from_numpy(sets[0].labels), 3, replace(SWEEP, lr=(0.1,)), 0)
    guesses = heads.scores(features(sets[1]), 0).argmax(1)
    assert result.values["top1"].bool().tolist() == (guesses.numpy() == sets[1].labels).tolist()
    assert 0 < result.values["top1"].mean() < 1
    assert result.facts == {"labelled_images": 48}


@pytest.mark.parametrize(("augment", "lr"), [(False, 1.0), (True, 0.3)])
def test_the_best_epoch_stands_beside_the_last_under_an_id_of_its_own(sets, augment, lr):
    """With a constant rate, each epoch has the accuracy of a training that ends there; the result is the last one's."""
    constant = {"lr": (lr,), "schedule": "drops", "drops": (), "augment": augment}
    after = [
        100 * float(probe(sets, replace(SWEEP, **constant, epochs=epochs)).result(0).values["top1"].mean())
        for epochs in (1, 2, 3)
    ]
    assert len(set(after)) > 1
    protocol = replace(SWEEP, **constant, best_epoch=True)
    result = probe(sets, protocol).result(0)
    assert 100 * float(result.values["top1"].mean()) == pytest.approx(after[-1])
    best = result.facts["best_epoch"]
    assert best["top1"] == pytest.approx(max(after), abs=1e-3) and best["epoch"] == after.index(max(after)) + 1
    assert best["protocol"] == f"{protocol.id}-best-epoch" and "best-epoch" not in protocol.id


def test_random_crops_may_be_smaller_than_the_test_images(sets):
    """STL-10's published probe: crops of 64, tests at 96."""
    protocol = replace(SWEEP, lr=(0.1,), augment=True, crop_size=8)
    seen = []
    made = probe(sets, protocol)
    made._network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    made.result(0)
    assert set(seen) == {8} and made._test_MD.shape[1] == 32
    assert protocol.id.startswith("linear-augmented8-sgd")


@pytest.mark.parametrize("augment", [False, True])
def test_every_rate_of_a_sweep_is_what_it_is_alone(sets, augment):
    protocol = replace(SWEEP, augment=augment)
    rows = probe(sets, protocol).result(0).facts["rates"]
    alone = [probe(sets, replace(protocol, lr=(rate,))).result(0) for rate in protocol.lr]
    assert [row["lr"] for row in rows] == list(protocol.lr)
    assert [row["top1"] for row in rows] == [round(100 * float(one.values["top1"].mean()), 4) for one in alone]
    assert len({row["top1"] for row in rows}) > 1


def test_augmented_epochs_see_other_crops_and_seeds_other_ones(sets):
    protocol = replace(SWEEP, lr=(0.1,), augment=True)
    one, same, other = probe(sets, protocol), probe(sets, protocol), probe(sets, protocol, {1: BANK})
    first = one._on_views(0).weight_HCD
    assert torch.equal(first, same._on_views(0).weight_HCD)
    assert not torch.equal(first, other._on_views(1).weight_HCD)
    assert not torch.allclose(first, probe(sets, replace(protocol, augment=False))._on_cached(0).weight_HCD)


@pytest.mark.parametrize("augment", [False, True])
def test_the_held_out_labels_choose_the_rate_and_the_test_set_does_not(sets, augment):
    bank, queries = sets
    protocol = replace(SWEEP, augment=augment)
    found = probe(sets, protocol).result(0).facts
    swapped = probe((bank, replace(queries, labels=(queries.labels + 1) % 3)), protocol).result(0).facts
    assert found["lr"] == swapped["lr"]
    held_out = {row["lr"]: row["held_out_top1"] for row in found["rates"]}
    assert held_out[found["lr"]] == max(held_out.values()) and len(set(held_out.values())) > 1
    assert held_out == {row["lr"]: row["held_out_top1"] for row in swapped["rates"]}


def test_labels_that_are_not_chosen_change_nothing(sets):
    bank, queries = sets
    chosen = {0: np.arange(0, 48, 3), 4: np.arange(1, 48, 3)}
    labels = bank.labels.copy()
    labels[2::3] = (labels[2::3] + 1) % 3
    one, two = probe(sets, SWEEP, chosen), probe((replace(bank, labels=labels), queries), SWEEP, chosen)
    for seed in chosen:
        assert one.result(seed).facts == two.result(seed).facts
    assert one.result(0).facts["labelled_images"] == 16


def test_a_probe_that_diverges_everywhere_is_one_line(sets, monkeypatch):
    monkeypatch.setattr("models.evaluation.linear_heads.Heads.finite", lambda self, head: False)
    with pytest.raises(FloatingPointError, match=r"diverged at learning rate 0.001, 0.1, 3; take a smaller one"):
        probe(sets, SWEEP).result(0)


def measured(bank, queries):
    """Figures of a cached and an augmented sweep on this process."""
    sets = open_dataset(Path(bank)), open_dataset(Path(queries))
    found = []
    for augment in (False, True):
        heads = probe(sets, replace(SWEEP, augment=augment))
        found.append((heads.result(0).facts, (heads._on_views if augment else heads._on_cached)(0).weight_HCD))
    return found


@pytest.mark.processes
def test_two_processes_train_what_one_does(sets):
    paths = [str(dataset.path) for dataset in sets]
    expected = measured(*paths)
    for process in gloo.run(measured, 2, *paths):
        for (facts, weight), (own_facts, own_weight) in zip(expected, process, strict=True):
            assert facts == own_facts
            torch.testing.assert_close(own_weight, weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop_size": 24}, "--crop-size is of random crops; give --augment too"),
        ({"best_epoch": True, "lr": (0.1, 1.0)}, "--best-epoch is of one learning rate"),
    ],
)
def test_options_that_would_do_nothing_are_refused(sets, given, message):
    with pytest.raises(ValueError, match=message):
        LinearProtocol.chosen(given, None, {})
