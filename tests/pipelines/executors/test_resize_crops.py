"""Crops resized by matrix products against OpenCV's area resize and Pillow's filters, for every box and view size."""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("cv2", reason="OpenCV, which FFCV brings, is not installed")

from pipelines.executors.device_cutter import cut_views
from pipelines.executors.executor import Decoded
from pipelines.executors.resize_crops import padded, resize_crops
from pipelines.plan.plan import Plan
from pipelines.plan.views import RESIZE, View
from tests.support.reference_resize import resized

SIZES = [1, 16, 24, 32, 48, 60, 96, 224]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("resize", RESIZE)
def test_it_equals_opencv_and_pillow(size, resize, device):
    rng = np.random.default_rng(size)
    pictures = [rng.integers(0, 256, (*sides, 3)).astype(np.uint8) for sides in [(32, 32), (60, 80), (97, 41)] * 20]
    boxes, flips, expected = [], [], []
    for picture in pictures:
        sides = np.array(picture.shape[:2])
        box = rng.integers(1, sides + 1)
        place = rng.integers(0, sides - box + 1)
        crop = picture[place[0] : place[0] + box[0], place[1] : place[1] + box[1]]
        view = resized(Image.fromarray(crop), size, resize)
        flip = rng.random() < 0.5
        boxes.append([*place, *box])
        flips.append(flip)
        expected.append(view[:, ::-1] if flip else view)
    volumes = np.array([picture.shape[0] * picture.shape[1] for picture in pictures])
    found = resize_crops(
        torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in pictures])).to(device),
        torch.from_numpy(volumes.cumsum() - volumes).to(device),
        torch.tensor([picture.shape[1] for picture in pictures]).to(device),
        torch.tensor(np.array(boxes)).to(device),
        torch.tensor(flips).to(device),
        size,
        resize,
        padded(np.array(boxes)),
    )
    assert found.is_contiguous(memory_format=torch.channels_last) or size == 1
    gap = np.abs(found.permute(0, 2, 3, 1).cpu().numpy().astype(int) - np.stack(expected))
    assert gap.max() <= (1 if resize == "area" else 0) and gap.mean() < 0.2


@pytest.mark.parametrize("resize", RESIZE)
def test_a_process_without_a_share_of_the_last_batch_gets_views_of_no_sample(resize):
    sides = np.full(3, 20)
    plan = Plan(sides, sides, (View(16, resize=resize),), 2, drop_last=False, rank=1, world=2).batch(0, 1)
    nothing = np.zeros(0, dtype=np.int64)
    (view,) = cut_views(
        Decoded(torch.zeros(1200, 3, dtype=torch.uint8), nothing, nothing), plan, (View(16, resize=resize),)
    )
    assert view.shape == (0, 3, 16, 16) and view.dtype == torch.uint8
