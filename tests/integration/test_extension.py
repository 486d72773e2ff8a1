"""A finished run gets more epochs: by --extend alone, recorded, and bit for bit whether it is stopped or not."""

import json
import shutil

import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import runs
from tools.run.record import read_run


def test_a_finished_run_is_extended(data, tmp_path, monkeypatch, capfd):
    """4 epochs of 3 steps, then 3 more; once without a stop, once stopped inside them and resumed without options."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"

    def go(run, **changed):
        changed = {"knn_every": 0, "val_data": None, "checkpoint_every": 4, "warmup_epochs": 1} | changed
        code = runs.in_process(train, monkeypatch, *runs.options(data, run, **changed))
        output = capfd.readouterr()
        return code, " ".join((output.out + output.err).split())

    assert go(whole, epochs=4)[0] == 0
    finished = runs.rows(whole, "loss")
    shutil.copytree(whole, halves)
    code, told = go(whole, epochs=7, resume=True)
    assert code == 2 and "started with epochs 4, not 7" in told and "--extend LR" in told and f"--init {whole}" in told
    code, told = go(whole, epochs=7, resume=True, extend=0.02, lr=0.1)
    assert code == 2 and "the run was started with lr" in told
    code, told = go(whole, epochs=7, resume=True, extend=0.02)
    assert code == 0 and "epochs 4 to 7 are an extension: learning rate from 0.02 to 0 along half a cosine" in told
    rows = runs.rows(whole, "loss")
    assert rows[:12] == finished and [row["step"] for row in rows] == list(range(1, 22))
    assert rows[12]["lr"] == 0.02 > rows[13]["lr"] > rows[20]["lr"] > 0 and rows[11]["lr"] < 0.01
    config = json.loads((whole / "config.json").read_text())
    expected = {"from_epoch": 4, "lr": 0.02, "to_epoch": 7, "schedule": "half a cosine from lr to 0"}
    assert config["extended"] == [expected] and config["recipe"]["epochs"] == 4
    assert config["resumed"][-1]["changed"]["recipe.epochs"] == 7
    assert read_run(whole).state == "finished" and read_run(whole).planned_steps == 21

    assert go(halves, epochs=7, resume=True, extend=0.02, max_steps=17)[0] == 0
    code, told = go(halves, epochs=None, resume=True)
    assert code == 0 and "epochs 4 to 7 are an extension" in told
    assert runs.rows(halves, "loss") == rows
    left, right = runs.weights(whole), runs.weights(halves)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    code, told = go(tmp_path / "none", epochs=7, resume=True, extend=0.02)
    assert code == 2 and "holds no checkpoint of one" in told
