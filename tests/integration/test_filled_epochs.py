"""An epoch that leaves no image out: its last batch is filled up, and a run that stops inside it goes on."""

import json

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import runs
from tests.support.method_runs import words


@pytest.mark.whole_run
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_filled_epoch_resumes(data, tmp_path, monkeypatch, accumulate):
    """48 images in steps of 20: three steps an epoch, where two would leave 8 images out."""
    same = {"batch_size": 20, "fill_last_batch": True, "epochs": 2, "accumulate": accumulate, "keep": 1}
    for name, stops in (("whole", (6,)), ("stopped", (2, 4, 6))):
        for stop in stops:
            options = words("moco", data, tmp_path / name, max_steps=stop, resume=stop > 2 and len(stops) > 1, **same)
            assert runs.in_process(train, monkeypatch, *options) == 0
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert (summary["step"], summary["samples_seen"]) == (6, 120)
    whole, stopped = ([row["loss"] for row in runs.rows(tmp_path / name, "loss")] for name in ("whole", "stopped"))
    assert whole == stopped and len(whole) == 6
