"""What the README's table of costs promises, counted: bytes kept, batches alive, the largest tensor made."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.evaluation.features import extract_local
from models.methods.clim_selection import select
from models.queue import KeyQueue
from models.search.kmeans import ROWS
from models.search.nearest import CHUNK
from models.search.nearest import ROWS as QUERIES
from models.search.sharded_features import LocalFeatures
from pipelines import Dataset, View, make_loader
from pipelines.executors.ffcv import FfcvExecutor
from pipelines.executors.resident import DecodedImages
from pipelines.formats.shard_format import RECORD
from pipelines.plan.views import evaluation
from tests.support.datasets import photos

BATCHES = 5  # of views: the consumer's, two that wait, one that is made, one that is cut ahead


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, list | tuple) else [result]:
            if isinstance(one, torch.Tensor):
                self.bytes = max(self.bytes, one.numel() * one.element_size())
        return result


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    made: Dataset = photos(tmp_path_factory.mktemp("bounds"))
    return made


def test_a_queue_keeps_its_keys_and_two_numbers() -> None:
    queue = KeyQueue(1000, 16, count=2)
    assert sum(buffer.nbytes for buffer in queue.buffers()) == 2 * 1000 * 16 * 4 + 2 * 8


@pytest.mark.parametrize(("number", "clusters"), [(4_000, 20), (16_000, 20)])
def test_selection_makes_no_tensor_that_grows_faster_than_its_samples(number: int, clusters: int) -> None:
    """No N x N and no N x C: what is not of fixed size is a few numbers a sample."""
    generator = torch.Generator().manual_seed(0)
    part = LocalFeatures(torch.arange(number), torch.randn(number, 16, generator=generator), number)
    with Largest() as largest:
        select(part, "paper", 8, 5, clusters, 3)
    fixed = max(QUERIES * CHUNK * 4, ROWS * clusters * 4)  # a chunk of scores, of distances to centroids
    assert largest.bytes <= min(fixed, QUERIES * (number + 16) * 4)
    assert largest.bytes < number * number * 4 / 2


def test_a_resident_set_is_its_pixels(dataset: Dataset) -> None:
    images = DecodedImages(dataset, torch.device("cpu"), 1)
    assert images.pixels_P3.nbytes == int((dataset.heights.astype(np.int64) * dataset.widths).sum()) * 3
    assert images.first_N.nbytes + images.mode.nbytes == dataset.number * 9


def test_a_loader_is_at_most_a_few_batches_ahead(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    started = 0
    start = FfcvExecutor.start

    def counting(*arguments: Any) -> Any:
        nonlocal started
        started += 1
        return start(*arguments)

    monkeypatch.setattr(FfcvExecutor, "start", counting)
    with make_loader(dataset, [View(16)], 2, loader="ffcv", threads=1) as loader:
        for consumed, _ in enumerate(loader.epoch(0), 1):
            time.sleep(0.05)  # the loader is faster and would run ahead if it could
            assert started <= consumed - 1 + BATCHES
            if consumed == 4:
                break
    assert started >= 4 + 2  # and ahead it was


def test_a_feature_bank_is_the_pooled_features(dataset: Dataset) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    with make_loader(dataset, [evaluation(16)], 5, shuffle=False, drop_last=False, threads=1) as loader:
        part = extract_local(network, loader, dataset.number)
    assert part.features_MD.nbytes == dataset.number * 12 * 4
    assert part.features_MD.untyped_storage().nbytes() == part.features_MD.nbytes  # no view into something larger


def test_an_index_is_44_bytes_an_image() -> None:
    assert RECORD.itemsize == 44
