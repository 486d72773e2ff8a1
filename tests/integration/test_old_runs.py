"""A run that commit 7840fe4 of the project wrote: it resumes and evaluates as it would have there.

It is CLIM on the handwritten digits, 24 of 30 steps. Its config.json and checkpoint hold names that fields had then
(`image_keep`, `decay_vectors`).
"""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
pytest.importorskip("sklearn", reason="scikit-learn, which holds the digits, is not installed")

import eval as evaluation
import train
from tests.support import runs
from tests.support.datasets import converted
from tools.report import main as report

OLD = Path(__file__).parents[1] / "support" / "run_of_7840fe4"
OPTIONS = {
    "method": "clim", "recipe": "digits", "width": 1, "dim": 8, "queue-size": 64, "neighbors": 4, "start-epoch": 0,
    "epochs": 2, "warmup-epochs": 1, "precision": "fp32", "threads": 1, "log-every": 2, "keep": 1, "knn-every": 0,
}  # fmt: skip
WORDS = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)] + ["--no-compile"]
LOSSES = {26: 4.163329124450684, 28: 4.178746223449707, 30: 4.157999038696289}  # what 7840fe4 logged without a stop


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return Path(converted("digits", tmp_path_factory.mktemp("digits") / "digits.beton").path)


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_it_resumes(digits, old_run, monkeypatch, capsys):
    where = ["--data", digits, "--output", old_run, "--max-steps", 30, "--resume"]
    assert runs.in_process(train, monkeypatch, *WORDS, *where) == 0
    assert f"resumed from {old_run}" in capsys.readouterr().out
    losses = {row["step"]: row["loss"] for row in runs.rows(old_run, "loss") if row["step"] > 24}
    assert losses == pytest.approx(LOSSES, rel=1e-3)  # another CPU sums in another order
    config = json.loads((old_run / "config.json").read_text())
    assert not {"recipe.crop_ratio", "recipe.decay_norm_and_bias"} & config["resumed"][0]["changed"].keys()


def test_a_renamed_value_still_counts(digits, old_run, monkeypatch, capsys):
    where = ["--data", digits, "--output", old_run, "--max-steps", 30, "--resume", "--crop-ratio", 0.5]
    assert runs.in_process(train, monkeypatch, *WORDS, *where) == 2
    assert "the run was started with crop_ratio 1.0, not 0.5" in capsys.readouterr().err


def test_values_that_are_not_given_are_those_of_its_config(digits, old_run, monkeypatch, capsys):
    """Tables are corrected and get new fields; a run goes on with what it was started with."""
    words = [word for name in ("precision", "threads", "keep", "knn-every") for word in (f"--{name}", OPTIONS[name])]
    where = ["--method", "clim", "--data", digits, "--output", old_run, "--max-steps", 26, "--no-compile", "--resume"]
    assert runs.in_process(train, monkeypatch, *words, *where, "--log-every", 2) == 0
    losses = {row["step"]: row["loss"] for row in runs.rows(old_run, "loss") if row["step"] > 24}
    assert losses == pytest.approx({26: LOSSES[26]}, rel=1e-3)
    capsys.readouterr()
    assert runs.in_process(train, monkeypatch, *words, *where, "--recipe", "cifar10") == 2
    assert "the run was started with recipe digits, not cifar10" in capsys.readouterr().err
    assert runs.in_process(train, monkeypatch, *words, *where, "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2") == 2
    assert "the run was started with mean [], not [0.5, 0.5, 0.5]" in capsys.readouterr().err


def test_it_evaluates_and_reports(digits, old_run, monkeypatch, capsys):
    held_out = digits.with_name("digits-test.beton")
    words = ["knn", "--run", old_run, "--data", digits, "--val-data", held_out, "--threads", 1]
    assert runs.in_process(evaluation, monkeypatch, *words) == 0
    found = json.loads((old_run / "eval-knn.json").read_text())
    assert found["top1"] == pytest.approx(27.89, abs=0.6)  # two of 355 images
    assert found["protocol"]["id"] == "knn-k20-t0.1-cosine-student"
    assert report(["compare", str(old_run)]) == 0
