"""train.py as a program: what it leaves, kills and signals, accumulation, several processes."""

import json
import random
import re
import shutil
import signal
from dataclasses import dataclass

import pytest
import torch
from torch import nn

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from models.evaluation.knn_monitor import KnnMonitor
from models.method import Losses, Method
from models.methods.registry import REGISTRY, Entry
from models.networks.backbone import Backbone
from models.options import option
from models.recipe_tables.sources import ours
from models.storage import checkpoint
from pipelines import View
from pipelines.formats.opening import open_dataset
from tests.support import runs
from tests.support.runs import LAST, assert_same_run, weights
from tools.run.process_start import STOPPED

# ---- a whole run --------------------------------------------------------------------------------------------------


def test_a_run_leaves_config_metrics_checkpoints_and_summary(whole, data):
    run, output = whole
    losses = runs.rows(run, "loss")
    assert [row["step"] for row in losses] == list(range(1, LAST + 1))
    assert [row["samples_seen"] for row in losses] == [16 * step for step in range(1, LAST + 1)]
    assert [row["epoch"] for row in losses] == [step // 3 for step in range(1, LAST + 1)]
    assert losses[0]["lr"] == 0 and losses[3]["lr"] == 0.06 and losses[-1]["lr"] < 0.001
    partners = runs.rows(run, "partner_selected")
    assert [row["step"] for row in partners] == list(range(0, LAST, 6)) and partners[0]["partner_paired"] > 0.3
    assert any(row["partner_share"] > 0.01 for row in losses) and any(row["partner_share"] == 0 for row in losses)
    assert [row["step"] for row in runs.rows(run, "knn_top1")] == [0, 30, 60]

    config, summary = (json.loads((run / name).read_text()) for name in ("config.json", "summary.json"))
    assert config["recipe"]["resolutions"] == [16, 12] and config["sources"]["width"] == "command line"
    assert config["data"]["checksum"] == open_dataset(data.train).checksum
    assert summary["final_loss"] == losses[-1]["loss"] and summary["samples_seen"] == 16 * LAST
    assert summary["knn_top1"] == pytest.approx(runs.rows(run, "knn_top1")[-1]["knn_top1"], abs=1e-4)
    assert summary["knn_protocol"] == "knn-k20-t0.1-cosine-student" and summary["seconds"] > 0
    assert {"torch", "accelerate", "ffcv"} <= summary["versions"].keys()
    checksum = open_dataset(data.held_out).checksum
    assert config["held_out"] == {"path": str(data.held_out), "source": "photos", "number": 12, "checksum": checksum}
    assert summary["held_out"] == config["held_out"]
    assert f"held-out images: {data.held_out}, 12 labelled, checksum {checksum}" in output
    assert runs.checkpoints(run) == ["step-00000055", "step-00000060"]
    assert "world size 1 (cpu, fp32, 1 threads)" in output and "48 images, 20 epochs of 3 steps" in output
    assert "step: plain" in output


def test_a_finished_run_is_not_trained_again(whole, data, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole[0], tmp_path / "run")
    assert runs.in_process(train, monkeypatch, *runs.options(data, run), "--resume") == 0
    assert "resumed from" in capsys.readouterr().out
    assert_same_run(whole[0], run)


def test_a_best_accuracy_is_saved_with_its_weights_although_no_checkpoint_is_due(data, tmp_path, monkeypatch):
    run, measured = tmp_path / "run", iter([90.0, 50.0, 80.0, 60.0, 70.0, 65.0])  # that of the untrained one is none
    monkeypatch.setattr(KnnMonitor, "measure", lambda self, backbone: next(measured))
    words = runs.options(data, run, checkpoint_every=LAST, knn_every=2, keep=1, epochs=10)
    assert runs.in_process(train, monkeypatch, *words) == 0
    assert [row["knn_top1"] for row in runs.rows(run, "knn_top1")] == [90, 50, 80, 60, 70, 65]
    assert runs.checkpoints(run) == ["step-00000012", "step-00000030"]
    assert checkpoint.best(run / "checkpoints").state["knn_top1"] == 80


# ---- kills and signals --------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_twice_equals_one_that_was_not(whole, data, tmp_path, monkeypatch, capsys):
    run, moments = tmp_path / "run", random.Random(3)
    for attempt, step in enumerate((moments.randrange(6, 16), moments.randrange(20, 36))):
        words = runs.options(data, run, resume=attempt > 0)
        code, _ = runs.signalled(words, run, step, signal.SIGKILL)
        assert code == -signal.SIGKILL and not (run / "summary.json").exists()
    assert runs.in_process(train, monkeypatch, *runs.options(data, run), "--resume") == 0
    assert "resumed from" in capsys.readouterr().out
    assert_same_run(whole[0], run)
    assert len(runs.rows(run)) == LAST + LAST // 6 + 3  # losses, partner rates and kNN: each row once


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(whole, data, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes()[:700])  # the last row is cut
    assert runs.in_process(train, monkeypatch, *runs.options(data, run), "--resume") == 0
    assert "holds no checkpoint; starting from the first step" in capsys.readouterr().out
    assert_same_run(whole[0], run)


def test_sigterm_writes_a_checkpoint_and_the_run_goes_on_from_it(whole, data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    code, output = runs.signalled(runs.options(data, run, checkpoint_every=LAST), run, 7, signal.SIGTERM)
    assert code == STOPPED == 143
    (name,) = runs.checkpoints(run)
    step = int(name.removeprefix("step-"))
    assert 7 <= step < LAST and f"stopped by a signal at step {step}; go on with --resume" in output
    assert "Traceback" not in output and runs.rows(run)[-1]["step"] == step
    assert runs.in_process(train, monkeypatch, *runs.options(data, run), "--resume") == 0
    assert_same_run(whole[0], run)


def test_a_kill_while_a_checkpoint_is_written_falls_back_to_the_one_before(whole, data, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole[0], tmp_path / "run")
    (run / "summary.json").unlink()
    newest, partial = run / "checkpoints/step-00000060", run / "checkpoints/.step-00000061.partial"
    shutil.copytree(newest, partial)
    with open(newest / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    assert runs.in_process(train, monkeypatch, *runs.options(data, run, keep=1), "--resume") == 0
    output = capsys.readouterr().out
    assert "step-00000060 is damaged and was skipped" in output and "resumed from" in output
    assert "step-00000055" in output.replace("\n", "")
    assert_same_run(whole[0], run)
    assert runs.checkpoints(run) == ["step-00000060"]  # whole again, and nothing left behind


# ---- accumulation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    dim: int = option(8, "width of the embedding")


class TwoViews(Method):
    """A loss that is a mean over samples and a network without batch statistics: parts of a batch add up exactly."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__()
        self.views = (View(16), View(16))
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, settings.dim)

    def forward(self, batch):
        first, second = (self.head(self.backbone(view).pooled) for view in batch.views)
        return Losses((first - second - 1).square().mean())

    def encoder(self):
        return self.backbone


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.03), ("adamw", 2e-3)])
def test_a_batch_in_parts_trains_as_the_whole_batch(optimizer, lr, data, tmp_path, monkeypatch):
    row = {"backbone": ours("vit_small"), "width": ours(2), "image_size": ours(16)}
    monkeypatch.setitem(REGISTRY, "simclr", Entry(TwoViews, Settings, {"tiny": row}))  # under a name that is known
    common = {
        "method": "simclr", "recipe": "tiny", "data": data.train, "optimizer": optimizer, "batch-size": 16,
        "epochs": 3, "warmup-epochs": 1, "lr": lr, "clip-norm": 0.5, "threads": 1, "precision": "fp32",
        "log-every": 1, "knn-every": 0,
    }  # fmt: skip
    trained = []
    for parts in (1, 2, 4):
        given = common | {"accumulate": parts, "output": tmp_path / str(parts)}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        assert runs.in_process(train, monkeypatch, *words, "--no-compile") == 0
        trained.append(weights(tmp_path / str(parts)))
    books = [
        [(row["step"], row["epoch"], row["samples_seen"], row["lr"]) for row in runs.rows(tmp_path / str(parts), "lr")]
        for parts in (1, 2, 4)
    ]
    assert books[0] == books[1] == books[2] and len(books[0]) == 9
    torch.manual_seed(0)
    fresh = train.build("simclr", "tiny").state_dict()
    for name, value in trained[0].items():
        for other in trained[1:]:
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4)
    moved = max(float((trained[0][name] - fresh[name]).abs().max()) for name in fresh)
    assert moved > 5e-3  # far more than the tolerance


def test_accumulation_keeps_the_books_of_clim_and_resumes(whole, data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert runs.in_process(train, monkeypatch, *runs.options(data, run, accumulate=2, max_steps=7)) == 0
    assert runs.in_process(train, monkeypatch, *runs.options(data, run, accumulate=2), "--resume") == 0
    own, other = runs.rows(run, "loss"), runs.rows(whole[0], "loss")
    for name in ("step", "epoch", "samples_seen", "lr"):
        assert [row[name] for row in own] == [row[name] for row in other]
    assert int(weights(run)["queue.filled"]) == 64 and int(weights(run)["queue.pointer"]) == 16 * LAST % 64


# ---- several processes --------------------------------------------------------------------------------------------


def test_two_processes_train_as_one(data, tmp_path, monkeypatch):
    words = {"val_data": data.held_out, "max_steps": 10, "checkpoint_every": 5, "lr": 0.01}
    assert runs.in_process(train, monkeypatch, *runs.arguments(data.train, output=tmp_path / "one", **words)) == 0
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2 train.py"
    done = runs.command(launcher, *runs.arguments(data.train, output=tmp_path / "two", **words))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("world size 2 (cpu:0, fp32, 1 threads)") == 1  # one process speaks
    one, two = (runs.rows(tmp_path / name, "loss") for name in ("one", "two"))
    assert len(two) == 10  # and one writes
    for first, second in zip(one, two, strict=True):
        assert {**first, "loss": 0, "partner_share": 0} == {**second, "loss": 0, "partner_share": 0}
        # Rounding grows with the steps; seen on a CPU: 7e-6 up to step 7, after a second selection; then 1e-3.
        assert second["loss"] == pytest.approx(first["loss"], abs=2e-4 if first["step"] <= 7 else 2e-2)
        assert second["partner_share"] == pytest.approx(first["partner_share"], abs=1e-6)
    assert abs(one[0]["loss"] - one[-1]["loss"]) > 0.05
    assert runs.checkpoints(tmp_path / "two") == ["step-00000005", "step-00000010"]
    assert json.loads((tmp_path / "two/config.json").read_text())["world_size"] == 2
    left, right = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in left:
        torch.testing.assert_close(right[name], left[name], rtol=0, atol=0.1)
    assert torch.equal(right["queue.pointer"], left["queue.pointer"])


def test_a_run_of_which_no_checkpoint_can_be_read_is_left_as_it_is(whole, data, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole[0], tmp_path / "run")
    for path in (run / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert runs.in_process(train, monkeypatch, *runs.options(data, run), "--resume") == 2
    error = capsys.readouterr().err
    assert re.match(r"train\.py: none of the \d checkpoints in .* can be read: step-00000060 is damaged", error)
    assert error.endswith("start again with --force instead of --resume\n") and error.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
