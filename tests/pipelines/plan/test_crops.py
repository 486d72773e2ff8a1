"""Boxes and flips against an independent RandomResizedCrop, written as torchvision's documentation describes it."""

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.plan import crops
from pipelines.plan.random_numbers import key
from pipelines.plan.views import View, evaluation

COUNT = 20_000


def reference_crop(rng, height, width, scale, ratio):
    """One box, drawn step by step."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    shape = width / height
    if shape < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif shape > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.2, 1.0), (3 / 4, 4 / 3)),
        (300, 200, (0.08, 1.0), (3 / 4, 4 / 3)),
        (64, 400, (0.2, 1.0), (3 / 4, 4 / 3)),  # long: the ten tries often fail
        (8, 8, (0.5, 1.0), (1.0, 1.0)),
    ],
)
def test_boxes_have_the_distribution_of_random_resized_crop(height, width, scale, ratio):
    view = View(32, scale, ratio)
    sides = np.full(COUNT, height), np.full(COUNT, width)
    ours = crops.boxes(view, key(7, np.arange(COUNT)), *sides)
    rng = np.random.default_rng(3)
    theirs = np.array([reference_crop(rng, height, width, scale, ratio) for _ in range(COUNT)])
    top, left, h, w = ours.T
    assert (h > 0).all() and (w > 0).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    for name, value in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0] / np.maximum(height - b[:, 2], 1),
        "left": lambda b: b[:, 1] / np.maximum(width - b[:, 3], 1),
    }.items():
        assert stats.ks_2samp(value(ours.astype(float)), value(theirs.astype(float))).pvalue > 1e-3, name


def test_shapes_that_no_box_fits_get_the_largest_centred_one():
    view = View(32, (1.0, 1.0), (3 / 4, 4 / 3))
    ours = crops.boxes(view, key(np.arange(2)), np.array([10, 1000]), np.array([1000, 10]))
    assert ours.tolist() == [[0, 493, 10, 13], [493, 0, 13, 10]]


def test_one_pixel_images_keep_one_pixel():
    ours = crops.boxes(View(32), key(np.arange(100)), np.full(100, 1), np.full(100, 1))
    assert (ours == [0, 0, 1, 1]).all()


def test_flips_come_with_their_probability():
    flipped = crops.flips(View(32, flip=0.9), key(1, np.arange(COUNT)))
    assert stats.binomtest(int(flipped.sum()), COUNT, 0.9).pvalue > 1e-3
    assert not crops.flips(View(32, flip=0.0), key(np.arange(100))).any()


def test_evaluation_boxes_are_centred_and_fixed():
    view = evaluation(224, 224 / 256)
    ours = crops.boxes(view, key(np.arange(3)), np.array([256, 300, 64]), np.array([256, 200, 64]))
    assert ours.tolist() == [[16, 16, 224, 224], [62, 12, 175, 175], [4, 4, 56, 56]]
    assert (ours[:, 2] == ours[:, 3]).all()
