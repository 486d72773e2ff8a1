"""The Triton kernels against the CPU's: every operation, odd sides, several views in one launch.

Without a GPU they run in Triton's interpreter (`conftest.py` switches it on), on CPU tensors.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("tests.support.triton_installed", reason="Triton is not installed, or too old")

from pipelines.augmentation import triton_kernels
from pipelines.augmentation.augment import make_augment
from pipelines.augmentation.operations import Normalization
from pipelines.augmentation.triton_augment import TritonAugment
from pipelines.plan.photometric import NUMBERS, photometric_numbers
from pipelines.plan.random_numbers import key
from pipelines.plan.views import View, contrastive, evaluation
from pipelines.transfer import to_device_together
from tests.support.naive_colors import MEAN, STD

STRONG = View(24, jitter=(0.8, 0.8, 1.0, 0.5), jitter_p=0.9, grayscale_p=0.3, blur_p=0.5, solarize_p=0.4, permute_p=0.6)


def images_of(count, size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    return torch.device(request.param)


def by_triton(device, views, images, numbers, dtype=torch.float32):
    augment = TritonAugment(views, Normalization.of(MEAN, STD, device), dtype)
    moved = [image.to(device) for image in images]
    tables = augment.numbers(moved, SimpleNamespace(photometric_VSP=numbers.numpy()))
    return [view.cpu() for view in augment(moved, to_device_together(tables, device))]


def by_cpu(views, images, numbers, dtype=torch.float32):
    augment = make_augment(views, MEAN, STD, torch.device("cpu"), dtype)
    made = augment(images, [numbers])
    augment.close()
    return made


def levels(found, expected):
    """The largest difference in levels of 255."""
    std = torch.tensor(STD).view(3, 1, 1)
    return max(float(((a.float() - b.float()) * std * 255).abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("size", [1, 2, 7, 19])
def test_whole_chains_of_views_in_one_launch(size, device, monkeypatch):
    monkeypatch.setattr(triton_kernels, "TILE", 128)  # several tiles of a picture, the last one partly outside
    views = (replace(STRONG, size=size), evaluation(size), contrastive(size))
    images = [images_of(3, size, number) for number in range(len(views))]
    numbers = torch.stack([torch.from_numpy(photometric_numbers(view, key(4, np.arange(3)))) for view in views])
    found, expected = by_triton(device, views, images, numbers), by_cpu(views, images, numbers)
    assert levels(found, expected) < 0.01
    assert all(view.is_contiguous(memory_format=torch.channels_last) or size == 1 for view in found)


UNCHANGED = [1, 1, 1, 0, 0, 0, 0, 256, 0]


@pytest.mark.parametrize(
    "changes",
    [{0: 1.4}, {1: 0.4}, {2: 1.9}, {3: 0.3}, {3: -0.5}, {5: 1}, {6: 0.6}, {6: 2.0}, {7: 128}, {8: 4}, {1: 1.7, 3: 0.1}],
    ids=str,
)
def test_one_operation(changes, device):
    numbers = torch.tensor([[UNCHANGED]] * 2, dtype=torch.float32).reshape(2, 1, NUMBERS)
    for column, value in changes.items():
        numbers[0, 0, column] = value
    views = (replace(STRONG, size=12),) * 2  # the second picture keeps its colours
    images = [images_of(1, 12)] * 2
    found = by_triton(device, views, images, numbers)
    assert levels(found, by_cpu(views, images, numbers)) < 0.01
    assert levels(found[:1], found[1:]) > 1


@pytest.mark.parametrize("order", range(24))
def test_every_order_of_the_jitter(order, device):
    numbers = torch.tensor([[[1.3, 0.6, 1.5, 0.2, order, 0, 0, 256, 0]]])
    views, images = (replace(STRONG, size=6),), [images_of(1, 6)]
    assert levels(by_triton(device, views, images, numbers), by_cpu(views, images, numbers)) < 0.01


def test_sizes_are_launches_of_their_own_and_numbers_round_to_bfloat16(device):
    views = (contrastive(7), evaluation(5), contrastive(7), evaluation(5))
    images = [images_of(2, view.size, number) for number, view in enumerate(views)]
    numbers = torch.stack([torch.from_numpy(photometric_numbers(view, key(1, np.arange(2)))) for view in views])
    for dtype in (torch.float32, torch.bfloat16):
        found, expected = by_triton(device, views, images, numbers, dtype), by_cpu(views, images, numbers, dtype)
        assert [view.dtype for view in found] == [dtype] * 4
        assert levels(found, expected) < (0.01 if dtype == torch.float32 else 1)
    empty = by_triton(device, views, [image[:0] for image in images], numbers[:, :0])
    assert [view.shape for view in empty] == [(0, 3, view.size, view.size) for view in views]
