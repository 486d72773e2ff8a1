"""The data path as it runs on a GPU: one copy of all numbers, Triton's kernels on resident pixels.

Without a GPU the kernels run in Triton's interpreter, on CPU tensors.
"""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("tests.support.triton_installed", reason="Triton is not installed, or too old")
pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from pipelines import View, make_loader
from pipelines.augmentation import triton_cut, triton_kernels
from pipelines.augmentation.operations import Normalization
from pipelines.augmentation.triton_augment import TritonAugment
from pipelines.executors.resident import ResidentExecutor, decoded_images
from pipelines.loader import Loader
from pipelines.plan.pairing import Pairing
from pipelines.plan.plan import Plan
from pipelines.plan.views import contrastive
from tests.support.datasets import converted
from tests.support.images import encoded, smooth, write

COLOURS = replace(contrastive(5), blur_sigma=(0.1, 0.4), resize="bilinear")
VIEWS = (COLOURS, View(4, resize="bicubic"), replace(COLOURS, flip=1.0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Pictures so small that an interpreter cuts them in seconds."""
    root = tmp_path_factory.mktemp("device")
    for number in range(8):
        picture = smooth(7 + number, 12 - number, number)
        write(root / "small" / f"class{number % 2}" / f"{number}.png", encoded(picture, "PNG"))
    return converted(root / "small", root / "small.beton")


def made_as_on_a_gpu(dataset, monkeypatch, size):
    """A loader with the parts that it would have on a GPU, on a CPU."""
    monkeypatch.setattr("pipelines.executors.resident.has_triton", lambda device: True)
    for kernels in (triton_cut, triton_kernels):
        monkeypatch.setattr(kernels, "TILE", 32)  # one tile is enough for such small views
    device = torch.device("cpu")
    plan = Plan(dataset.heights, dataset.widths, VIEWS, size)
    executor = ResidentExecutor(dataset, plan.views, decoded_images(dataset, device, 1))
    augment = TritonAugment(plan.views, Normalization.of(dataset.mean, dataset.std, device), torch.float32)
    return Loader(dataset, plan, executor, augment, device)


@pytest.mark.parametrize("mixes", [False, True])
def test_batches_are_those_of_a_cpu(dataset, mixes, monkeypatch):
    candidates = ((np.arange(8) + 1) % 8).astype(np.int32)
    pairing = Pairing(candidates, np.arange(8, dtype=np.int64), np.ones(8, np.int32), 1.0, 1.0) if mixes else None
    with make_loader(dataset, VIEWS, 3, threads=1) as loader:
        expected = next(iter(loader.epoch(1, loader.steps - 1, pairing)))
    with made_as_on_a_gpu(dataset, monkeypatch, 3) as loader:
        found = next(iter(loader.epoch(1, loader.steps - 1, pairing)))
    same(found, expected)
    if mixes:
        same(found.partner, expected.partner)
        assert torch.equal(found.box, expected.box)
    assert (found.partner is not None) == mixes


def test_warming_up_makes_a_batch_of_the_run_in_the_calling_thread(dataset, monkeypatch):
    with made_as_on_a_gpu(dataset, monkeypatch, 3) as loader:
        threads, made = threading.active_count(), []
        make = loader._make
        monkeypatch.setattr(
            loader, "_make", lambda *arguments: made.append((threading.current_thread(), make(*arguments)))
        )
        loader.warm_up(2, 1)
        [(thread, batch)] = made
        assert thread is threading.current_thread() and threading.active_count() == threads
        assert batch.index.tolist() == loader.plan.batch(2, 1).source_S.tolist()


def same(found, expected):
    assert torch.equal(found.index, expected.index) and torch.equal(found.label, expected.label)
    for ours, theirs in zip(found.views, expected.views, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        gap = (ours - theirs).abs()  # beside a level that is one off after rounding, they are equal
        assert gap.max() < 0.1 and (gap > 2e-4).float().mean() < 0.01


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["resident", "ffcv", "dali"])
def test_batches_of_a_gpu_are_those_of_a_cpu(dataset, name):
    """Decoded by the same decoder they are equal, and by that of the GPU nearly."""
    if name == "dali":
        pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")
    with make_loader(dataset, VIEWS, 6, threads=2, loader="ffcv") as loader:
        expected = list(loader.epoch(0))
    with make_loader(dataset, VIEWS, 6, threads=2, loader=name, device="cuda") as loader:
        loader.warm_up(0, 0)
        for found, other in zip(loader.epoch(0), expected, strict=True):
            for ours, theirs in zip(found.views, other.views, strict=True):
                gap = (ours.cpu() - theirs).abs()
                assert gap.mean() < (0.05 if name == "dali" else 1e-3)
