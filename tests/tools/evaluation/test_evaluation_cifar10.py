"""Evaluation of real images: CIFAR-10's development copy, an untrained network, scikit-learn on the same features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.neighbors import KNeighborsClassifier

import eval as program
from models.evaluation.features import extract
from models.evaluation.label_split import balanced_split
from models.networks.backbones import build_backbone
from models.storage.encoder import from_weights
from pipelines import make_loader, open_dataset
from pipelines.plan.views import evaluation
from tests.support import runs
from tests.support.datasets import converted

ARCHIVE = Path(__file__).parents[4] / "shared" / "data" / "cifar10.tar.xz"
pytestmark = [pytest.mark.shared_data, pytest.mark.whole_run]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    if not ARCHIVE.exists():
        pytest.skip("the development images are not beside the checkout")
    folder = tmp_path_factory.mktemp("cifar10")
    converted(ARCHIVE, folder / "cifar10.beton")
    torch.manual_seed(0)
    facts = {"backbone": "resnet18", "width": "4", "stem": "small", "image_size": "32"}
    save_file(build_backbone("resnet18", width=4, stem="small").state_dict(), folder / "w.safetensors", facts)
    return folder


def call(cifar, monkeypatch, *words):
    sets = ("--data", cifar / "cifar10.beton", "--val-data", cifar / "cifar10-test.beton", "--device", "cpu")
    common = ("--weights", cifar / "w.safetensors", "--threads", 2, *sets)
    assert runs.in_process(program, monkeypatch, words[0], *common, *words[1:]) == 0
    return json.loads((cifar / f"w.safetensors.eval-{words[0]}.json").read_text())


def features(cifar, name, numbers):
    backbone = from_weights(cifar / "w.safetensors").backbone.to(memory_format=torch.channels_last)
    bank = open_dataset(cifar / "cifar10.beton")
    # The statistics that a file of weights lacks are the bank's, for both sets.
    dataset = replace(open_dataset(cifar / name), mean=bank.mean, std=bank.std)
    with make_loader(dataset, [evaluation(32)], 512, subset=numbers, shuffle=False, drop_last=False) as loader:
        return extract(backbone, loader).numpy(), dataset.labels[numbers]


def test_splits_of_its_labels_are_balanced_and_reproducible(cifar):
    labels = open_dataset(cifar / "cifar10.beton").labels
    for share, each in ((0.01, 50), (0.1, 500)):
        chosen = balanced_split(labels, share, 0)
        assert np.bincount(labels[chosen]).tolist() == [each] * 10
        assert np.array_equal(chosen, balanced_split(labels, share, 0))
    assert set(balanced_split(labels, 0.01, 0)) < set(balanced_split(labels, 0.1, 0))


def test_knn_equals_scikit_learn(cifar, monkeypatch):
    found = call(cifar, monkeypatch, "knn", "--labels", "10%", "--k", 50)
    chosen = balanced_split(open_dataset(cifar / "cifar10.beton").labels, 0.1, 0)
    bank, labels = features(cifar, "cifar10.beton", chosen)
    queries, truth = features(cifar, "cifar10-test.beton", np.arange(10_000))
    reference = KNeighborsClassifier(50, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1))
    reference.fit(bank.astype(np.float64), labels)
    expected = 100 * reference.score(queries.astype(np.float64), truth)
    assert found["top1"] == pytest.approx(expected, abs=0.011) and expected > 15  # at most one tie of 10,000


def test_the_sweep_equals_its_rates_one_by_one(cifar, monkeypatch):
    words = ("linear", "--labels", "10%", "--epochs", 3)
    sweep = call(cifar, monkeypatch, *words, "--lr", "0.1,1")
    for row in sweep["rates"]:
        alone = call(cifar, monkeypatch, *words, "--lr", row["lr"])
        assert row["top1"] == pytest.approx(alone["top1"], abs=0.1)  # images on the border: 10 of 10,000
    assert sweep["lr"] in (0.1, 1.0)
