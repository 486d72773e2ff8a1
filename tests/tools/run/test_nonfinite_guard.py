"""A step that is not finite: stopped before the update, kept whole, and replayed by one command."""

import errno
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.method import Losses, Method
from models.networks.teacher import Teacher
from models.queue import KeyQueue
from models.storage import checkpoint
from models.training.optim import build_optimizer
from pipelines import Batch
from tests.support.states import run_state
from tools import replay
from tools.command_line import Failure
from tools.run.nonfinite_files import named, read_batches, unnamed
from tools.run.nonfinite_guard import StepGuard

BAD = 4  # the step whose gradient is infinite


class Toy(Method):
    """A student, a teacher and a queue; the square root's gradient is infinite where the batch is 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.scale = nn.Parameter(torch.ones(()))
        self.teacher = Teacher(self.student)
        self.queue = KeyQueue(8, 4)

    def forward(self, batch):
        keys = self.teacher(batch.views[0])
        loss = (self.student(batch.views[0]) - self.queue.keys()[:2]).square().mean()
        self.queue.push(keys)
        return Losses(loss + (self.scale * batch.box.sum()).abs().sqrt())

    def after_step(self, step):
        super().after_step(step)
        self.teacher.update(self.student, 0.9)


def batch_of(step, number=0):
    views = (torch.randn(2, 3, generator=torch.Generator().manual_seed(10 * step + number)),)
    box = torch.full((2, 4), 0.0 if (step, number) == (BAD, 1) else 1.0)
    index = torch.tensor([step, number])
    return Batch(views, index, index, 7 * step, Batch(views, index, index, 7 * step), box)


def trained(folder, late, name, steps=6):
    """Losses of what is trained, two micro-batches a step: (what the guard said, state dicts before each step)"""
    method, state = Toy(), run_state()
    optimizer = build_optimizer(method.named_parameters(), name, 0.1)
    guard = StepGuard(method, optimizer, late, folder, {"options": {"precision": "fp32"}, "recipe": {}}, state)
    before = []
    try:
        for step in range(1, steps + 1):
            kept = {key: value.clone() for key, value in method.state_dict().items()}
            numbers = {k: {e: v.clone() for e, v in s.items()} for k, s in optimizer.state_dict()["state"].items()}
            before.append((kept, numbers))
            for number in range(2):
                guard.watch(batch_of(step, number))
                loss = method(batch_of(step, number)).total
                loss.backward()
            finite = guard.examine(loss.detach())
            if not late:
                guard.check(finite)
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(step - 1)
            if late:
                guard.check_late(finite)
            state.step = step
        guard.settle()
    except Failure as failure:
        return str(failure), before, state.step
    return "", before, state.step


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("late", [False, True])
def test_the_state_before_the_bad_step_is_kept_bit_for_bit(late, name, tmp_path):
    said, before, reached = trained(tmp_path, late, name)
    folder = tmp_path / f"nonfinite-step-{BAD:08d}"
    assert said.startswith("the gradient of 1 of 5 parameters (scale ...) is not finite at step 4; lower --lr")
    assert said.endswith(f"replay the step with: python -m tools.replay {folder}")
    assert reached == BAD - 1 + late  # late: one more step is made before it is known
    found = checkpoint.load(folder / "before" / f"step-{BAD - 1:08d}")
    model, numbers = before[BAD - 1]
    assert found.state["step"] == BAD - 1
    assert found.model.keys() == model.keys() and all(torch.equal(found.model[key], model[key]) for key in model)
    for number, entries in numbers.items():
        assert all(torch.equal(found.optimizer[f"{number}.{entry}"], value) for entry, value in entries.items())
    facts = json.loads((folder / "step.json").read_text())
    assert facts["images"] == [[BAD, 0], [BAD, 1]] and facts["seeds"] == [7 * BAD] * 2
    saved = read_batches(folder, facts)
    for number in range(2):
        expected = named(batch_of(BAD, number))
        assert named(saved[number]).keys() == expected.keys() and saved[number].seed == 7 * BAD
        assert all(torch.equal(value, expected[key]) for key, value in named(saved[number]).items())


def test_a_first_step_that_is_bad(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "BAD", 1)
    said, before, _ = trained(tmp_path, True, "adamw")
    assert "at step 1" in said
    found = checkpoint.load(tmp_path / "nonfinite-step-00000001" / "before" / "step-00000000")
    assert all(torch.equal(found.model[key], value) for key, value in before[0][0].items()) and not found.optimizer


def test_finite_steps_pass(tmp_path):
    for late in (False, True):
        assert trained(tmp_path, late, "sgd", steps=BAD - 1)[0] == ""
    assert list(tmp_path.iterdir()) == []


def test_parts_of_several_processes_are_joined_as_one_would_have_them(tmp_path):
    from safetensors.torch import save_file

    whole = torch.arange(12.0).view(6, 2)
    for rank in range(2):
        part = {"0 view 0": whole[rank::2].contiguous(), "0 index": torch.arange(rank, 6, 2), "0 label": torch.zeros(3)}
        save_file(part, tmp_path / f"batch-process-{rank}.safetensors")
    (batch,) = read_batches(tmp_path, {"processes": 2, "seeds": [3]})
    assert torch.equal(batch.views[0], whole) and batch.index.tolist() == list(range(6)) and batch.partner is None


def test_the_reason_is_told_where_the_folder_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    said = trained(tmp_path, False, "sgd")[0]
    assert said.startswith("the gradient of 1 of 5 parameters (scale ...) is not finite at step 4; lower --lr")
    assert said.endswith("; what replays the step could not be written ([Errno 28] No space left on device)")


@pytest.mark.parametrize("late", [False, True])
def test_weights_that_an_update_broke_are_not_kept(late, tmp_path):
    method = Toy()
    guard = StepGuard(
        method, build_optimizer(method.named_parameters(), "sgd", 0.1), late, tmp_path, {}, run_state(step=3)
    )
    method.scale.data.fill_(1e30)  # its square overflows
    guard.settle()
    for broken in (float("inf"), float("nan")):
        method.scale.data.fill_(broken)
        with pytest.raises(
            Failure, match=r"weights of 1 of 5 parameters \(scale \.\.\.\) are not finite after step 3;"
        ):
            guard.settle()


@pytest.mark.whole_run
def test_a_run_is_stopped_and_its_step_replayed(tmp_path, monkeypatch, capfd):
    """train.py with an absurd learning rate; what the command prints; a folder that was edited."""
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    import train
    from tests.support import runs

    data = runs.make_data(tmp_path)
    run = tmp_path / "run"
    words = runs.options(data, run, lr=1e18, warmup_epochs=0, checkpoint_every=50, knn_every=0)
    assert runs.in_process(train, monkeypatch, *words) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "lower --lr, or take --precision fp32" in error
    folder = next(run.glob("nonfinite-step-*"))
    step = int(folder.name.rsplit("-", 1)[1])
    assert f"is not finite at step {step}; " in error or f"the loss is nan at step {step}; " in error
    assert error.endswith(f"replay the step with: python -m tools.replay {folder}\n")
    assert len(runs.rows(run, "loss")) == step - 1  # the bad step never happened
    assert all(value.isfinite().all() for value in load_file(next(folder.glob("before/*/model.safetensors"))).values())

    assert replay.main([str(folder), "--device", "cpu"]) == 0
    output = capfd.readouterr().out
    assert output.startswith(f"step {step} of clim, in the run: the ")
    assert "before the step, of the tensors of the state: all are finite" in output
    assert "of the batch: all are finite" in output
    assert "is the first whose output is not finite" in output or "of the gradients: " in output

    (folder / "batch-process-0.safetensors").write_bytes(b"")
    assert replay.main([str(folder)]) == 2
    assert f"tools.replay: {folder} cannot be replayed (SafetensorError" in capfd.readouterr().err
    assert unnamed(named(batch_of(1)), 7).partner is not None


def test_a_folder_that_was_edited_is_one_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    for text in ("[]", "{}", '{"step": "x"}', '{"step": 1, "processes": "2"}', "[" * 99_999):
        (tmp_path / "step.json").write_text(text)
        assert replay.main([str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"tools.replay: {tmp_path} cannot be replayed (") and error.count("\n") == 1
    for words, said in (([], "the following arguments are required"), (["x", "--device", "tape"], "take cpu or cuda")):
        assert replay.main(words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
