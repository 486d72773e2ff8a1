"""--mean and --std of a training: the views have them, and so do its files, its evaluation and its exported weights."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import eval as evaluation
import train
from models.storage.encoder import from_run
from models.storage.load_encoder import load_encoder
from pipelines import open_dataset
from tests.support import runs
from tests.support.method_runs import words
from tools.export import main as export

GIVEN = {"mean": "0.5,0.25,0.75", "std": "0.2,0.3,0.4"}
MEAN, STD = (0.5, 0.25, 0.75), (0.2, 0.3, 0.4)


@pytest.mark.whole_run
def test_given_statistics_go_with_the_run(data, tmp_path, monkeypatch):
    views = []
    real = train.Trainer.train_on
    monkeypatch.setattr(
        train.Trainer, "train_on", lambda self, batch: views.append(batch.views[0].clone()) or real(self, batch)
    )
    for name, given in (("own", {}), ("given", GIVEN)):
        options = words("moco", data, tmp_path / name, max_steps=1, knn_every=0, **given)
        assert runs.in_process(train, monkeypatch, *options) == 0
    dataset = open_dataset(data.train)
    own, given = (
        torch.tensor(np.array(pair), dtype=torch.float32)[..., None, None]
        for pair in ((dataset.mean, dataset.std), (MEAN, STD))
    )
    torch.testing.assert_close(views[1] * given[1] + given[0], views[0] * own[1] + own[0], atol=1e-5, rtol=0)

    run = tmp_path / "given"
    config = json.loads((run / "config.json").read_text())
    assert (tuple(config["data"]["mean"]), tuple(config["data"]["std"])) == (MEAN, STD)
    assert config["sources"]["mean"] == "command line" and config["recipe"]["std"] == list(STD)
    (state,) = run.glob("checkpoints/*/state.json")
    assert json.loads(state.read_text())["recipe"]["mean"] == list(MEAN)
    assert (from_run(run).mean, from_run(run).std) == (MEAN, STD)
    sets = ("--run", run, "--data", data.train, "--val-data", data.held_out, "--threads", 1)
    assert runs.in_process(evaluation, monkeypatch, "knn", *sets) == 0
    found = json.loads((run / "eval-knn.json").read_text())
    assert (tuple(found["mean"]), tuple(found["std"])) == (MEAN, STD)
    assert export([str(run), str(tmp_path / "w.safetensors")]) == 0
    exported = load_encoder(tmp_path / "w.safetensors")
    assert (tuple(exported.mean), tuple(exported.std)) == (MEAN, STD)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": "0.5,0.5,1.5", "std": "0.2,0.2,0.2"}, "--mean is 0.5,0.5,1.5; give 0 to 1"),
        ({"mean": "0.5,0.5,nan", "std": "0.2,0.2,0.2"}, "--mean: invalid list of finite float value: '0.5,0.5,nan'"),
        ({"mean": "0.5,0.5,0.5", "std": "0.2,0.2,0"}, "--std is 0.2,0.2,0; give 0.01 to 1"),
        ({"mean": "124,116,104", "std": "58,57,57"}, "--mean is 124,116,104; give 0 to 1"),
        ({"mean": "0.5,0.5,0.5"}, "--mean has 3 and --std 0 numbers; give three for each: R,G,B"),
        ({"mean": "0.5", "std": "0.2"}, "--mean has 1 and --std 1 numbers; give three for each: R,G,B"),
        (
            {"backbone": "vit_small", "heads": 7},
            "a width of 24 does not divide into 7 heads; give --heads that divide it",
        ),
    ],
)
def test_bad_values_are_one_line_and_leave_no_run(data, tmp_path, monkeypatch, capsys, given, message):
    options = words("moco", data, tmp_path / "run", max_steps=1, **given)
    assert runs.in_process(train, monkeypatch, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
