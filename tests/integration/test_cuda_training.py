"""What only a GPU shows of a run: methods train there as on a CPU, go on from a checkpoint, and are evaluated."""

import copy
import json
import shutil

import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import eval as evaluation
import train
from models import build
from models.methods.clim_selection import select
from models.methods.registry import REGISTRY
from models.search.sharded_features import LocalFeatures
from models.storage.snapshot import HostCopy
from models.training.optim import build_optimizer
from pipelines import make_loader
from tests.support import runs
from tests.support.method_runs import FROM, LAST, words

pytestmark = pytest.mark.cuda


def losses(run):
    return [row["loss"] for row in runs.rows(run, "loss")]


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_a_run_goes_on_where_it_was(method, data, tmp_path, monkeypatch):
    """A GPU's sums have no fixed order: the first step equals the undisturbed one's to rounding, which then grows."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    options = words(method, data, whole, loader="resident", checkpoint_every=FROM, keep=LAST)
    assert runs.in_process(train, monkeypatch, *options) == 0
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / f"step-{LAST:08d}")
    options = words(method, data, again, loader="resident", checkpoint_every=FROM, keep=LAST, resume=True)
    assert runs.in_process(train, monkeypatch, *options) == 0
    assert json.loads((whole / "config.json").read_text())["device"].startswith("cuda")
    expected, found = losses(whole), losses(again)
    print(f"{method}: {[f'{abs(a - b) / abs(a):.0e}' for a, b in zip(expected, found, strict=True)][FROM:]}")
    assert found[:FROM] == expected[:FROM]
    assert found[FROM] == pytest.approx(expected[FROM], rel=1e-3, abs=1e-3)
    assert found[FROM:] == pytest.approx(expected[FROM:], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_the_first_loss_is_the_equations(method, data, tmp_path, monkeypatch):
    """In float64 on a CPU, of the same images: a GPU's pixels differ by a level here and there, and by rounding.

    A batch of all 48 images at 32 pixels: batch norms over 16 rows of 16 pixels turned a level into 0.1 nats.
    """
    seen = []
    real = train.Trainer.train_on

    def detect_lost_peers(self, batch):
        if not seen:
            exact = copy.deepcopy(self.method).cpu().double()
            exact.begin(0, self.steps_per_epoch, self.training.epochs)
            place = {"seed": self.options.seed, "loader": "resident", "dtype": torch.float64, "threads": 1}
            with make_loader(self.dataset, exact.views, self.training.batch_size, **place) as loader:
                seen.append(float(exact(next(iter(loader.epoch(0, pairing=self.method.pairing)))).total))
        return real(self, batch)

    monkeypatch.setattr(train.Trainer, "train_on", detect_lost_peers)
    run = tmp_path / "run"
    sizes = {"batch_size": 48, "image_size": 32} | ({"resolutions": "32,24"} if method == "clim" else {"crop_size": 32})
    options = words(method, data, run, loader="resident", max_steps=1, **sizes)
    assert runs.in_process(train, monkeypatch, *options) == 0
    print(f"{method}: {losses(run)[0]} of {seen[0]}")
    assert losses(run)[0] == pytest.approx(seen[0], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("method", ["clim", "cgh", "msvq"])
def test_the_usual_settings_train_and_a_gpu_evaluates_as_a_cpu(method, data, tmp_path, monkeypatch):
    """bfloat16, compiled and recorded, split batch norms, selection, monitors, a resume; then kNN on both devices."""
    run = tmp_path / "run"
    usual = {"precision": None, "compile": True, "width": 8, "bn-splits": 2, "val-data": data.held_out, "knn-every": 1}
    options = words(method, data, run, **usual)
    assert runs.in_process(train, monkeypatch, *options) == 0
    options = words(method, data, run, **usual, max_steps=2 * LAST, resume=True)
    assert runs.in_process(train, monkeypatch, *options) == 0
    assert all(row["loss"] == row["loss"] for row in runs.rows(run, "loss"))
    assert json.loads((run / "config.json").read_text())["options"]["precision"] == "bf16"
    found = {}
    for device in ("cuda", "cpu"):
        place = ("--run", run, "--data", data.train, "--val-data", data.held_out, "--device", device)
        assert runs.in_process(evaluation, monkeypatch, "knn", *place, "--precision", "fp32") == 0
        found[device] = json.loads((run / "eval-knn.json").read_text())["top1"]
    assert found["cuda"] == pytest.approx(found["cpu"], abs=100 / 12 + 0.1)  # one of the 12 images


def test_selection_is_that_of_a_cpu():
    features = torch.randn(3000, 64, generator=torch.Generator().manual_seed(0))
    features += 3 * torch.randn(40, 64, generator=torch.Generator().manual_seed(1))[torch.arange(3000) % 40]
    found = {}
    for device in ("cpu", "cuda"):
        part = LocalFeatures(torch.arange(3000, device=device), features.to(device), 3000)
        found[device] = select(part, "paper", 32, 10, 40, 10)
    same = (found["cpu"].neighbors_Nk == found["cuda"].neighbors_Nk.cpu()).float().mean()
    assert same > 0.999
    assert (found["cpu"].count_N == found["cuda"].count_N.cpu()).float().mean() > 0.99


def test_a_snapshot_is_of_its_moment():
    """Copies run behind each other on the GPU: what is written afterwards is not in them."""
    method = build("moco", "cifar10", width=8, queue_size=4096).to("cuda")
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.01, 0.9, 5e-4)
    expected = {name: tensor.cpu().clone() for name, tensor in method.state_dict().items()}
    host = HostCopy()
    for _ in range(2):
        torch.cuda._sleep(20_000_000)  # the device is behind when the copy is asked for
        snapshot = host.take(method, optimizer, {"step": 0})
        for tensor in method.state_dict().values():
            tensor.add_(1)
        assert all(torch.equal(snapshot.model[name], value) for name, value in expected.items())
        expected = {name: value + 1 for name, value in expected.items()}
