"""Every method goes on from a checkpoint bit for bit: in a moved folder, by another loader, whatever was drawn."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from models.methods.registry import REGISTRY
from models.storage import checkpoint
from pipelines import Loader
from tests.support import runs
from tests.support.method_runs import FROM, LAST, words


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_a_moved_run_goes_on_bit_for_bit_with_another_loader(method, data, tmp_path, monkeypatch):
    whole, moved = tmp_path / "whole", tmp_path / "elsewhere" / "moved"
    every = words(method, data, whole, loader="resident", checkpoint_every=1, keep=LAST)
    assert runs.in_process(train, monkeypatch, *every) == 0
    shutil.copytree(whole, moved)
    for step in range(FROM + 1, LAST + 1):
        shutil.rmtree(moved / "checkpoints" / f"step-{step:08d}")
    drawn = []
    real = train.Trainer.train_on

    def drawing(self, batch):
        drawn.append(torch.rand(3))  # whoever draws from the global generator changes nothing
        return real(self, batch)

    def warming(self, epoch, step):
        warmed.append((epoch, step, len(drawn), len(self._running)))
        real_warm_up(self, epoch, step)

    warmed, real_warm_up = [], Loader.warm_up
    monkeypatch.setattr(Loader, "warm_up", warming)
    monkeypatch.setattr(train.Trainer, "train_on", drawing)
    again = words(method, data, moved, loader="ffcv", checkpoint_every=1, keep=LAST, resume=True)
    assert runs.in_process(train, monkeypatch, *again) == 0
    assert len(drawn) == LAST - FROM
    assert warmed == [(1, 1, 0, 0)]  # the batch that comes, of 3 an epoch, and no thread makes another one yet
    assert runs.rows(moved) == runs.rows(whole)
    for step in range(FROM + 1, LAST + 1):
        for name in ("model.safetensors", "optimizer.safetensors"):
            left, right = (load_file(run / "checkpoints" / f"step-{step:08d}" / name) for run in (whole, moved))
            assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left), (step, name)
    first, last = (load_file(moved / f"checkpoints/step-{step:08d}/model.safetensors") for step in (FROM, LAST))
    assert any(not torch.equal(value, last[key]) for key, value in first.items())


def test_a_run_goes_on_with_dali_bit_for_bit(data, tmp_path, monkeypatch):
    """On a CPU it decodes to the same pixels, from which the same function cuts the views."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    losses = []
    for loader in ("ffcv", "dali"):
        run = tmp_path / loader
        first = words("moco", data, run, loader="ffcv", max_steps=FROM)
        again = words("moco", data, run, loader=loader, resume=True, max_steps=LAST)
        assert runs.in_process(train, monkeypatch, *first) == runs.in_process(train, monkeypatch, *again) == 0
        losses.append([row["loss"] for row in runs.rows(run, "loss")])
    ours, dali = losses
    assert ours == dali


def test_what_a_checkpoint_says_of_a_run(whole, data):
    """All that is not a function of (seed, step): the rest of a run needs no state."""
    found = checkpoint.newest(whole[0] / "checkpoints")[0]
    assert found.state["samples_seen"] == 16 * found.state["step"] and found.pairing is not None
    kinds = {name.split(".")[0] for name in found.model}
    assert {"student", "teacher", "queue"} <= kinds, kinds
    assert found.optimizer and all(name.endswith("momentum_buffer") for name in found.optimizer)
    config = json.loads((whole[0] / "config.json").read_text())
    assert found.state["data_checksum"] == config["data"]["checksum"]
    assert {"commit", "versions", "machine", "world_size"} <= config.keys()


def test_torn_books_are_mended_and_what_changed_is_written_down(whole, data, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000060")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines[:5], lines[5][:20] + "\n", *lines[6:-2], lines[-2][:30]]))
    words = runs.options(data, run, precision="bf16", max_steps=57)
    assert runs.in_process(train, monkeypatch, *words, "--resume") == 0
    told = capsys.readouterr().out
    assert "warning: metrics.jsonl lacks 1 of its" in told and "precision fp32 -> bf16" in told
    steps = [row["step"] for row in runs.rows(run, "loss")]
    torn = json.loads(lines[5])["step"]
    assert steps == [step for step in range(1, 58) if step != torn]
    before, config = (json.loads((path / "config.json").read_text()) for path in (whole[0], run))
    (entry,) = config.pop("resumed")
    assert config == before and entry["step"] == 55
    changed = {name: value for name, value in entry["changed"].items() if name.startswith("options.")}
    assert changed == {"options.precision": "bf16", "options.max_steps": 57, "options.output": str(run)}
