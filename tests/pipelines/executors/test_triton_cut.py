"""The Triton kernels that cut views against the torch path, whose truth is in `test_resize_crops.py`."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from pipelines.executors.device_cutter import cut_by_triton, cut_views
from pipelines.plan.views import RESIZE, View


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("resize", RESIZE)
def test_it_equals_the_torch_path(resize, device):
    rng = np.random.default_rng(0)
    sides = np.array([(9, 14), (15, 4), (1, 3)])
    volumes = sides.prod(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (volumes.sum(), 3)).astype(np.uint8))
    views = tuple(View(size, resize=resize) for size in (6, 1, 6, 10))
    boxes = np.empty((len(views), len(sides), 4), np.int32)
    for view in range(len(views)):
        box = rng.integers(1, sides + 1) if view else sides  # the first view shows complete images
        boxes[view] = np.concatenate([rng.integers(0, sides - box + 1), box], axis=1)
    plan = SimpleNamespace(crop_VS4=boxes, flip_VS=rng.random(boxes.shape[:2]) < 0.5)
    arguments = (volumes.cumsum() - volumes, sides[:, 1], plan, views)
    expected = cut_views(pixels, *arguments)
    for ours, theirs in zip(cut_by_triton(pixels.to(device), *arguments), expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == torch.uint8
        gap = (ours.cpu().int() - theirs.int()).abs()
        assert gap.max() <= (1 if resize == "area" else 0) and gap.float().mean() < 0.1
