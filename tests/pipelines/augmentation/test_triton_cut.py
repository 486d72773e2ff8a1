"""The Triton kernels that cut views against the torch path, whose truth is in `test_resize_crops.py`."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("tests.support.triton_installed", reason="Triton is not installed, or too old")

from pipelines.augmentation import triton_cut, triton_kernels
from pipelines.augmentation.augment import make_augment
from pipelines.augmentation.operations import Normalization
from pipelines.augmentation.triton_augment import TritonAugment
from pipelines.executors.device_cutter import cut_views
from pipelines.executors.executor import Decoded
from pipelines.plan.photometric import photometric_numbers
from pipelines.plan.random_numbers import key
from pipelines.plan.views import RESIZE, View, contrastive
from pipelines.transfer import to_device_together
from tests.support.naive_colors import MEAN, STD

LEVELS = (0, 0, 0), (1 / 255,) * 3  # mean and deviation by which normalised values are levels


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    return torch.device(request.param)


def images_and_plan(views, device):
    rng = np.random.default_rng(0)
    sides = np.array([(7, 9), (11, 4), (1, 3)])
    volumes = sides.prod(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (volumes.sum(), 3)).astype(np.uint8))
    boxes = np.empty((len(views), len(sides), 4), np.int32)
    for view in range(len(views)):
        box = rng.integers(1, sides + 1) if view else sides  # the first view shows complete images
        boxes[view] = np.concatenate([rng.integers(0, sides - box + 1), box], axis=1)
    numbers = np.stack([photometric_numbers(view, key(9, number, np.arange(3))) for number, view in enumerate(views)])
    plan = SimpleNamespace(crop_VS4=boxes, flip_VS=rng.random(boxes.shape[:2]) < 0.5, photometric_VSP=numbers)
    return Decoded(pixels.to(device), volumes.cumsum() - volumes, sides[:, 1]), plan


def made(augment, images, plan, device):
    tables = augment.numbers(images, plan)
    return [view.cpu() for view in augment(images, to_device_together(tables, device))]


@pytest.mark.parametrize("resize", RESIZE)
def test_it_equals_the_torch_path(resize, device, monkeypatch):
    monkeypatch.setattr(triton_cut, "TILE", 64)
    views = tuple(View(size, resize=resize) for size in (6, 2, 10))
    images, plan = images_and_plan(views, device)
    found = made(TritonAugment(views, Normalization.of(*LEVELS, device), torch.float32), images, plan, device)
    for ours, theirs in zip(found, cut_views(images, plan, views), strict=True):
        assert ours.shape == theirs.shape
        gap = (ours.round() - theirs.cpu()).abs()
        assert gap.max() <= 1 and gap.mean() < (0.1 if resize == "area" else 0.01)  # of Pillow's, 0.001 was seen


@pytest.mark.parametrize("resize", ["area", "bilinear"])  # bicubic shares the code of bilinear but for the weights
def test_the_luma_of_a_cut_is_what_contrast_needs(resize, device, monkeypatch):
    """Complete chains after a cut in several tiles, beside the CPU's kernels on the same levels."""
    monkeypatch.setattr(triton_cut, "TILE", 16)  # the last tile of a view is partly outside
    monkeypatch.setattr(triton_kernels, "TILE", 64)
    strong = View(5, jitter=(0.8, 0.8, 1.0, 0.5), jitter_p=1.0, grayscale_p=0.3, resize=resize)
    views = (strong, replace(strong, size=7), View(5, resize=resize))
    images, plan = images_and_plan(views, device)
    found = made(TritonAugment(views, Normalization.of(MEAN, STD, device), torch.float32), images, plan, device)
    cut = TritonAugment([view.without_colours() for view in views], Normalization.of(*LEVELS, device), torch.float32)
    levels = [view.round().to(torch.uint8) for view in made(cut, images, plan_without_colours(plan), device)]
    host = make_augment(views, MEAN, STD, torch.device("cpu"))
    for ours, theirs in zip(found, host(levels, [torch.from_numpy(plan.photometric_VSP)]), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)
    host.close()


def plan_without_colours(plan):
    plain = np.stack([photometric_numbers(View(4), key(np.arange(3)))] * len(plan.crop_VS4))
    return SimpleNamespace(crop_VS4=plan.crop_VS4, flip_VS=plan.flip_VS, photometric_VSP=plain)


def test_three_launches_for_the_views_of_one_size(device, monkeypatch):
    """Of decoded images with all operations; two for views without colours."""
    launched = []
    for module, names in ((triton_cut, ("cut_pillow", "cut_area")), (triton_kernels, ("luma_sums", "columns", "rows"))):
        for name in names:
            monkeypatch.setattr(module, name, counted(getattr(module, name), name, launched))
    for kernels in (triton_cut, triton_kernels):
        monkeypatch.setattr(kernels, "TILE", 64)
    views = (contrastive(6), View(4, resize="bilinear"), contrastive(6))
    images, plan = images_and_plan(views, device)
    augment = TritonAugment(views, Normalization.of(MEAN, STD, device), torch.bfloat16)
    made(augment, images, plan, device)
    assert launched == ["cut_area", "columns", "rows", "cut_pillow", "rows"]
    launched.clear()
    made(
        augment,
        [torch.zeros(3, 3, view.size, view.size, dtype=torch.uint8, device=device) for view in views],
        plan,
        device,
    )
    assert launched == ["luma_sums", "columns", "rows", "rows"]


def counted(kernel, name, launched):
    """The kernel, that adds its name to a list at each launch."""

    class Counted:
        def __getitem__(self, grid):
            launched.append(name)
            return kernel[grid]

    return Counted()
