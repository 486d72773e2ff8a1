"""The trainer learns what plain code learns: MoCo v2 and MSVQ beside `tests/support/reference_trainer.py`.

Both train on the same images with the same options, two seeds each. They draw different random numbers, so that losses
and accuracies are compared within what another seed changes. Takes minutes: `python -m pytest tests -m learning`.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

import eval as evaluation
import train
from tests.support import plain_knn, runs
from tests.support import reference_trainer as reference
from tests.support.datasets import converted
from tests.support.real_images import UNPACK, cifar10, digits

pytestmark = [pytest.mark.learning, pytest.mark.timeout(7200)]
SEEDS = (0, 1)
QUARTERS = 4
BUDGETS = {
    "digits": reference.Budget("moco", batch_size=64, epochs=8, lr=0.06, queue_size=512, hidden=256, neighbors=20),
    "cifar10": reference.Budget("moco", batch_size=128, epochs=6, lr=0.06, queue_size=1024, neighbors=200),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Name of the data, training and test images, and the folder of the same converted."""
    folder = tmp_path_factory.mktemp("learning")
    name = "cifar10" if UNPACK.exists() else "digits"
    fitted, held_out = cifar10(folder, 10_000, 2_000) if name == "cifar10" else digits()
    fitted.save(folder / "png" / "train")
    held_out.save(folder / "png" / "test")
    converted(folder / "png", folder / "images.beton")
    return name, fitted, held_out, folder


def expected(budget, fitted, held_out):
    """The losses of every step and the kNN accuracy in percent of the plain trainer."""
    mean, std = (statistic(fitted.images, axis=(0, 1, 2)) / 255 for statistic in (np.mean, np.std))
    views = (mean.astype(np.float32), std.astype(np.float32))
    network, losses = reference.train(fitted.images, budget, *views)
    return losses, plain_knn.accuracy(network, fitted, held_out, budget, *views)


def ours(budget, folder, run, monkeypatch, **changed):
    """The same two of train.py and eval.py."""
    options = {
        "method": budget.method, "recipe": "cifar10", "width": budget.width, "batch-size": budget.batch_size,
        "epochs": budget.epochs, "warmup-epochs": budget.warmup_epochs, "lr": budget.lr, "hidden": budget.hidden,
        "queue-size": budget.queue_size, "seed": budget.seed, "knn-every": 0, "precision": "fp32", "threads": 1,
        "log-every": 1,
    } | changed  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    data = ["--data", folder / "images.beton", "--val-data", folder / "images-test.beton"]
    assert runs.in_process(train, monkeypatch, *data, *words, "--output", run, "--no-compile") == 0
    assert runs.in_process(evaluation, monkeypatch, "knn", "--run", run, *data, "--k", budget.neighbors) == 0
    found = json.loads((run / "eval-knn.json").read_text())
    return [row["loss"] for row in runs.rows(run, "loss")], found["top1"]


def figures(found):
    """The mean loss of each quarter of the steps, and the accuracy: [seeds, 5]."""
    return np.array([[*(np.mean(part) for part in np.array_split(losses, QUARTERS)), knn] for losses, knn in found])


def apart(first, second, floor):
    """How far the means of two groups lie apart, in spreads between seeds, or in floors if these are more."""
    spread = np.sqrt((first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / 2)
    return np.abs(first.mean(axis=0) - second.mean(axis=0)) / np.maximum(spread, floor)


def moved(first, second):
    """The largest distance between the losses of one seed.

    A seed's first weights are the same in both trainers, so this tells small differences even where seeds lie far
    apart: for MSVQ on CIFAR-10 it was 0.016 between plain code and ours, and 0.22 with a wrong momentum, while the
    losses of two seeds differ by 0.09.
    """
    return np.abs(first - second)[:, :QUARTERS].max()


def noticed(plain, measured, wrong, floor):
    """Whether a wrong trainer is told from plain code: outside the spread of seeds, or by far more than ours is."""
    return (apart(plain, wrong, floor) > 3).any() or moved(plain, wrong) > 3 * moved(plain, measured)


@pytest.mark.parametrize("method", ["moco", "msvq"])
def test_losses_and_accuracy_are_those_of_plain_code(images, method, tmp_path, monkeypatch):
    name, fitted, held_out, folder = images
    budget = replace(BUDGETS[name], method=method)
    plain = figures([expected(replace(budget, seed=seed), fitted, held_out) for seed in SEEDS])
    measured = figures([ours(replace(budget, seed=seed), folder, tmp_path / str(seed), monkeypatch) for seed in SEEDS])
    wrong = figures(
        [ours(replace(budget, seed=seed), folder, tmp_path / f"wrong{seed}", monkeypatch, ema=0.9) for seed in SEEDS]
    )
    chance = 100 * np.sqrt(0.25 / len(held_out.labels))  # the standard error of an accuracy
    floor = np.array([*([0.02] * QUARTERS), chance])
    print(f"\n{name}, {method}: mean loss of each quarter, kNN %\nplain\n{plain}\nours\n{measured}\nwrong\n{wrong}")
    assert (apart(plain, measured, floor) <= 3).all()
    assert noticed(plain, measured, wrong, floor), "a wrong momentum of the teacher goes unnoticed"
