"""A step that is recorded and replayed trains what a plain one does, bit for bit, for every method.

`Tape` stands in for CUDA graphs: a replay runs operations and no Python, so a number or a branch that was baked in
while recording would show here.
"""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from models.methods.registry import REGISTRY
from models.methods.siamese import Siamese
from models.networks import backbones
from models.storage import checkpoint
from tests.support import runs
from tests.support.method_runs import words
from tools.run.tape import Tape

STEPS = 50  # 3 an epoch: every schedule below is through, and each queue was filled sixteen times
LONG = {"clim": 100}  # which changes between kinds of steps, and between selections, all along
OWN = {
    "byol": {"ema_rises": True},  # beside the shuffled batches of the recipe
    "cgh": {"contrast_epochs": 2.5},  # fades out inside an epoch
    "clim": {"start_epoch": 1, "refresh_epochs": 3, "mix_probability": 0.6},  # plain steps first, then both kinds
    "iccl": {"ramp_start": 0.2, "ramp_end": 0.5},
}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """A ResNet of one block a stage: fewer operations, of the same kinds."""
    monkeypatch.setitem(backbones._RESNETS, "resnet18", replace(backbones._RESNETS["resnet18"], layers=(1, 1, 1, 1)))


def trained(method, data, run, monkeypatch, recorder, **changed):
    given = {"epochs": 20, "max_steps": STEPS, "checkpoint_every": 0, "warmup_epochs": 2, "log_every": 1, "lr": 0.004}
    given |= {"width": 2, "keep": 1}
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
    steps = LONG.get(method, STEPS)
    length = {"max_steps": steps, "epochs": 2 * steps // 5}
    plain = trained(method, data, tmp_path / "plain", monkeypatch, None, **length)
    recorded = trained(method, data, tmp_path / "recorded", monkeypatch, Tape(), **length)
    assert "is not recorded" not in capfd.readouterr().err
    assert_same(plain, recorded)
    rows = [runs.rows(tmp_path / name, "loss") for name in ("plain", "recorded")]
    assert rows[0] == rows[1] and len(rows[0]) == steps


@pytest.mark.parametrize("method", ["clim", "byol"])
def test_recorded_steps_resume_as_plain_ones_in_micro_batches(method, data, tmp_path, monkeypatch):
    same = {"max_steps": 24, "accumulate": 2, "epochs": 9}
    plain = trained(method, data, tmp_path / "plain", monkeypatch, None, **same)
    for stop in (7, 16, 24):  # inside epochs and at the end of one
        resumed = {"resume": stop > 7} | same | {"max_steps": stop}
        recorded = trained(method, data, tmp_path / "recorded", monkeypatch, Tape(), **resumed)
    assert_same(plain, recorded)


def test_a_number_that_is_baked_in_shows(data, tmp_path, monkeypatch):
    """The control of the tests above: a teacher whose momentum is a Python number moves wrongly in a recording."""

    def moved(self, numbers):
        self.teacher.follow(self.student, self.schedule(self.step)["teacher_share"])

    monkeypatch.setattr(Siamese, "update_teachers", moved)
    few = {"max_steps": 24, "epochs": 8, "lr": 0.02}
    plain = trained("byol", data, tmp_path / "plain", monkeypatch, None, **few)
    recorded = trained("byol", data, tmp_path / "recorded", monkeypatch, Tape(), **few)
    with pytest.raises(AssertionError):
        assert_same(plain, recorded)


def test_a_method_that_draws_inside_a_step_is_named(data, tmp_path, monkeypatch, capfd):
    real = Siamese.outputs
    monkeypatch.setattr(Siamese, "outputs", lambda self, batch: (torch.rand(1), real(self, batch))[1])
    trained("byol", data, tmp_path / "run", monkeypatch, Tape(), max_steps=2)
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and "draws random numbers (aten.rand.default) inside a step" in line
    assert line.startswith("the step cannot be recorded, which costs speed and nothing else: tests/integration/")
