"""Which statistics images are normalised by: the encoder's, else the bank's for both sets, and that is told."""

from pathlib import Path

import numpy as np
import pytest

from models.storage.encoder import Encoder
from pipelines import Dataset
from tools.command_line import Failure
from tools.evaluation.data import open_images
from tools.evaluation.evaluate import notes
from tools.evaluation.options import parse

SETS = ["--data", "bank", "--val-data", "queries"]


def encoder(mean=None, std=None):
    return Encoder(None, {}, 16, 1.0, mean, std, None, Path("w.pt"))


def dataset(path, level):
    labels, sides = np.arange(6) % 2, np.full(6, 16, np.int32)
    statistics = {"mean": (level,) * 3, "std": (level / 2,) * 3}
    return Dataset(
        path=Path(path), format="beton", number=6, classes=("a", "b"), heights=sides, widths=sides, labels=labels,
        checksum=path, name="made up", table=None, card={}, **statistics,
    )  # fmt: skip


@pytest.fixture
def sets(monkeypatch):
    made = {"bank": dataset("bank", 0.5), "queries": dataset("queries", 0.2)}
    monkeypatch.setattr("tools.evaluation.data.open_dataset", lambda path, check: made[path])
    return parse(["knn", "--weights", "w.pt", *SETS])


def test_a_file_without_statistics_is_normalised_by_the_bank_and_told(sets):
    images = open_images(sets, encoder())
    assert images.bank.mean == images.queries.mean == (0.5,) * 3
    assert images.bank.std == images.queries.std == (0.25,) * 3
    (note,) = notes(sets, {"newest": encoder()}, images)
    assert "w.pt does not say how its images were normalised: all are by mean and deviation of bank; --mean" in note


def test_what_the_encoder_says_goes_before(sets):
    said = encoder((0.1,) * 3, (0.9,) * 3)
    images = open_images(sets, said)
    assert images.bank.mean == images.queries.mean == (0.1,) * 3 and images.queries.std == (0.9,) * 3
    assert notes(sets, {"newest": said}, images) == []


def test_statistics_on_the_command_line():
    given = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    options = parse(["knn", "--weights", "w.pt", *SETS, *given])
    assert (options.mean, options.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for words in (given[:2], given[2:]):
        with pytest.raises(Failure, match=f"{words[0]} goes with --weights alone; leave it out"):
            parse(["knn", "--run", "run", *SETS, *words])
    with pytest.raises(Failure, match="--mean"):
        parse(["knn", "--weights", "w.pt", *SETS, "--mean", "grey"])
