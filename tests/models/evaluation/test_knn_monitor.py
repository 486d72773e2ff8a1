"""The kNN monitor against scikit-learn's classifier on the same features."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.neighbors import KNeighborsClassifier

from models.evaluation.features import NotFinite, extract
from models.evaluation.knn_monitor import KnnMonitor
from models.networks.backbones import build_backbone
from pipelines import make_loader
from pipelines.plan.views import evaluation
from tests.support.datasets import photos

VIEW = evaluation(16)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor")
    return photos(folder / "train", each=16), photos(folder / "held_out", each=7)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone("resnet18", width=4, stem="small")


def measured(train, held_out, backbone, bank=1000, batch=10, **loading):
    monitor = KnnMonitor(train, held_out, VIEW, bank, batch, threads=1, **loading)
    try:
        return monitor.measure(backbone), monitor.protocol
    finally:
        monitor.close()


def reference(train, held_out, backbone, bank, queries, k=20):
    """Percent right of scikit-learn's weighted vote; the held-out images are normalised as the training ones."""
    features = []
    for dataset in (train, replace(held_out, mean=train.mean, std=train.std)):
        with make_loader(dataset, [VIEW], 48, shuffle=False, drop_last=False) as loader:
            features.append(extract(backbone, loader).numpy())
    vote = KNeighborsClassifier(
        min(k, len(bank)), metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(features[0][bank], train.labels[bank])
    return 100 * (vote.predict(features[1][queries]) == held_out.labels[queries]).mean()


def test_it_equals_scikit_learn(sets, backbone):
    top1, protocol = measured(*sets, backbone)
    assert top1 == pytest.approx(reference(*sets, backbone, np.arange(48), np.arange(21)))
    assert 20 < top1 < 100  # neither all nor none, so that a difference would show
    assert protocol.id == "knn-k20-t0.1-cosine-student"


def test_another_precision_has_an_id_of_its_own(sets, backbone):
    assert measured(*sets, backbone, dtype=torch.bfloat16)[1].id == "knn-k20-t0.1-cosine-student-bf16"


def test_weights_that_are_not_finite_are_one_line(sets, backbone):
    broken = copy.deepcopy(backbone)
    torch.nn.init.constant_(broken.layer4[0].bn1.weight, float("nan"))
    with pytest.raises(NotFinite, match="the features of 48 of 48 images are not finite: the network's weights are"):
        measured(*sets, broken)


def test_a_bounded_bank_is_spread_over_the_set(sets, backbone):
    train, _ = sets
    bank = np.linspace(0, 47, 6).round().astype(int)
    assert set(train.labels[bank]) == {0, 1, 2}  # the file is sorted by class
    top1, _ = measured(*sets, backbone, bank=6)
    assert top1 == pytest.approx(reference(*sets, backbone, bank, np.arange(21)))


def test_images_without_a_label_take_no_part(sets, backbone):
    train, held_out = sets
    labels, held_labels = train.labels.copy(), held_out.labels.copy()
    labels[np.random.default_rng(0).permutation(48)[:30]] = -1  # as in STL-10: few of the images have a label
    held_labels[::3] = -1
    some, some_held = replace(train, labels=labels), replace(held_out, labels=held_labels)
    top1, _ = measured(some, some_held, backbone)
    expected = reference(some, some_held, backbone, np.flatnonzero(labels >= 0), np.flatnonzero(held_labels >= 0))
    assert top1 == pytest.approx(expected) and (top1 * 14 / 100) == pytest.approx(round(top1 * 14 / 100))


def test_the_network_is_left_in_its_mode_and_unchanged(sets, backbone):
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert measured(*sets, backbone)[0] == measured(*sets, backbone, batch=48)[0]
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_other_classes_and_missing_labels_are_one_line(sets, tmp_path):
    train, held_out = sets
    other = replace(held_out, classes=("x", "y", "z"))
    none = replace(held_out, labels=np.full(21, -1))
    for first, second, message in (
        (train, other, "have different classes; give --val-data of the same ones"),
        (train, none, "kNN needs labels in both"),
        (replace(train, labels=np.full(48, -1)), held_out, "kNN needs labels in both"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            KnnMonitor(first, second, VIEW, 10, 10)
        assert str(train.path) in str(caught.value) and "\n" not in str(caught.value)
