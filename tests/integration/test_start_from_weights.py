"""train.py --init: what is trained, what is recorded, and that such a run resumes bit for bit."""

import json
import shutil

import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from models.networks.backbones import build_backbone
from tests.support import runs


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(5)
    torch.save({"model": build_backbone("resnet18", 4, "small").state_dict()}, tmp_path / "others.pth")
    return tmp_path / "others.pth"


def test_a_run_from_weights_resumes_bit_for_bit(data, file, tmp_path, monkeypatch, capfd):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    words = {"init": file, "max_steps": 8, "checkpoint_every": 4, "knn_every": 0}
    assert runs.in_process(train, monkeypatch, *runs.options(data, whole, **words)) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert f"starts from {file}: took 120 tensors" in printed and "2 backbones (student, teachers)" in printed
    config = json.loads((whole / "config.json").read_text())
    assert config["init"]["path"] == str(file) and config["options"]["init"] == str(file)
    assert runs.in_process(train, monkeypatch, *runs.options(data, halves, **words | {"max_steps": 4})) == 0
    again = words | {"init": None, "resume": True}
    file.unlink()  # nothing of it is needed any more
    assert runs.in_process(train, monkeypatch, *runs.options(data, halves, **again)) == 0
    assert runs.rows(whole, "loss") == runs.rows(halves, "loss")
    left, right = runs.weights(whole), runs.weights(halves)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    assert json.loads((halves / "config.json").read_text())["init"] == config["init"]
    shutil.rmtree(halves / "checkpoints")
    capfd.readouterr()
    assert runs.in_process(train, monkeypatch, *runs.options(data, halves, **again)) == 2
    assert f"the run starts from {file} and has no checkpoint yet; give --init" in capfd.readouterr().err
