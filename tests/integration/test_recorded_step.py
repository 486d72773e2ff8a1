"""A step that is recorded and replayed trains what a plain one does, bit for bit, for every method.

`Tape` stands in for CUDA graphs: a replay runs operations and no Python, so a number or a branch that was baked in
while recording would show here.
"""

import pytest
import torch

pytest.importorskip("ffcv", reason="ffcv is not installed")

import train
from models.methods.registry import REGISTRY
from models.storage import checkpoint
from tests.integration.test_resume import words
from tests.support import runs
from tools.run.tape import Tape

STEPS = 200
OWN = {
    "cgh": {"contrast_epochs": 2.5},  # fades out inside an epoch
    "clim": {"start_epoch": 1, "refresh_epochs": 3, "mix_probability": 0.6},  # plain steps first, then both kinds
    "iccl": {"ramp_start": 0.2, "ramp_end": 0.5},
}


def trained(method, data, run, monkeypatch, recorder, **changed):
    given = {"epochs": 80, "max_steps": STEPS, "checkpoint_every": 0, "warmup_epochs": 2, "log_every": 1, "lr": 0.02}
    every = words(method, data, run, **given | OWN.get(method, {}) | changed)
    with monkeypatch.context() as patch:
        patch.setattr(train, "recorder_for", lambda *_: recorder)
        assert runs.in_process(train, patch, *every) == 0
    return checkpoint.newest(run / "checkpoints")[0]


def assert_same(one, other):
    assert one.model.keys() == other.model.keys() and one.optimizer.keys() == other.optimizer.keys()
    for name, value in (one.model | one.optimizer).items():
        assert torch.equal(value, (other.model | other.optimizer)[name]), name


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_a_recorded_step_equals_a_plain_one(method, data, tmp_path, monkeypatch, capfd):
    plain = trained(method, data, tmp_path / "plain", monkeypatch, None)
    recorded = trained(method, data, tmp_path / "recorded", monkeypatch, Tape())
    assert "is not recorded" not in capfd.readouterr().err
    assert_same(plain, recorded)
    rows = [runs.rows(tmp_path / name, "loss") for name in ("plain", "recorded")]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS
