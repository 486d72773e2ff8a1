"""The comparison of one process with several: MSVQ's losses agree, and a difference is not passed over."""

import json

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from tests.support import runs
from tools import compare_processes


@pytest.mark.processes
def test_msvq_trains_the_same_with_two_processes(data, tmp_path, capfd):
    clim_only = ("resolutions", "neighbors", "clusters", "whiten", "start-epoch", "refresh-epochs", "mix-probability")
    words = runs.arguments(data.train, method="msvq", lr=0.01, output=None, **dict.fromkeys(clim_only))
    command = ["--steps", "6", "--tolerance", "1e-4", "--out", str(tmp_path), "--", *words, "--peer-timeout", "60"]
    assert compare_processes.main(command) == 0, capfd.readouterr().err
    assert "largest difference of the loss up to step 6: " in capfd.readouterr().out
    one, two = (compare_processes.read_losses(tmp_path / f"{number}-processes") for number in (1, 2))
    assert list(one) == list(two) == [1, 2, 3, 4, 5, 6] and len(set(one.values())) == 6
    assert json.loads((tmp_path / "2-processes/config.json").read_text())["world_size"] == 2


def test_a_difference_and_a_missing_step_are_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_processes.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0}))
    for number, losses in ((1, [3.0, 2.0]), (2, [3.0, 2.5])):
        run = tmp_path / f"{number}-processes"
        run.mkdir()
        rows = [json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses, 1)]
        (run / "metrics.jsonl").write_text("".join(rows))
    for steps, tolerance, code in ((2, 0.6, 0), (2, 0.4, 1), (3, 0.6, 1)):
        words = ["--steps", str(steps), "--tolerance", str(tolerance), "--out", str(tmp_path), "--"]
        assert compare_processes.main(words) == code
