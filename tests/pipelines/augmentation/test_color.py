"""Each photometric operation against Pillow, OpenCV or the standard library."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from pipelines.augmentation import color
from pipelines.augmentation.blur import gaussian_blur, kernel_radius
from pipelines.plan.photometric import (
    BRIGHTNESS,
    CHANNEL_ORDERS,
    CONTRAST,
    SATURATION,
)
from tests.support.naive_colors import Picture, back, naive_hue, naive_jitter, pictures, planes

FACTORS = (0.0, 0.3, 0.6, 1.0, 1.4, 2.0)


def pillow(enhance: type, images: NDArray[np.uint8], factor: float) -> Picture:
    return np.stack([np.asarray(enhance(Image.fromarray(one)).enhance(factor)) for one in images]).astype(float)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST, SATURATION])
def test_blends_within_one_level_of_pillow(operation: int, factor: float) -> None:
    images = pictures(9, 24)
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[operation]
    ours = back(color.JITTER[operation](planes(images), torch.full((9, 1), factor)), 24)
    # Pillow cuts its result down to a whole level, and rounds the grey that it blends with.
    assert np.abs(np.floor(ours + 1e-4) - pillow(enhance, images, factor)).max() <= 1
    naive = np.stack([naive_jitter(one.astype(float), operation, factor) for one in images])
    np.testing.assert_allclose(ours, naive, atol=1e-3)


@pytest.mark.parametrize("turns", [-0.5, -0.31, -0.1, 0.0, 0.02, 0.1, 0.25, 0.5])
def test_hue_equals_the_hsv_round_trip(turns: float) -> None:
    images = pictures(9, 24)
    ours = back(color.hue(planes(images), torch.full((9, 1), turns)), 24)
    naive = np.stack([naive_hue(one.astype(float), turns) for one in images])
    np.testing.assert_allclose(ours, naive, atol=1e-2)
    # OpenCV's float HSV counts degrees.
    for one, mine in zip(images, ours, strict=True):
        hsv = cv2.cvtColor(one.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * turns) % 360
        assert np.abs(mine - 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).max() < 0.5


@pytest.mark.parametrize("shift", [0, 20, 200])
def test_hue_near_pillows_rounded_one(shift: int) -> None:
    """torchvision cuts hue to 255 steps of up to 6 levels, and its 8-bit sum loses one more where it wraps at 256."""
    images = pictures(9, 24)
    ours = back(color.hue(planes(images), torch.full((9, 1), shift / 255)), 24)
    for one, mine in zip(images, ours, strict=True):
        hsv = np.array(Image.fromarray(one).convert("HSV"))
        wraps = hsv[..., 0].astype(int) + shift > 255
        hsv[..., 0] += np.uint8(shift)
        theirs = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB")).astype(float)
        apart = np.abs(mine - theirs)
        assert apart[~wraps].mean() < 1.5
        assert apart[~wraps].max() < 6.5
        assert apart.max() < 12.5


def test_gray_solarize_and_permutation() -> None:
    images = pictures(6, 24)
    grey = back(color.grayscale(planes(images)), 24)
    assert np.abs(grey[..., 0] - [np.asarray(Image.fromarray(one).convert("L")) for one in images]).max() < 0.51
    assert (grey[..., :1] == grey).all()
    for threshold in (0, 100, 128, 256):
        ours = back(color.solarize(planes(images), torch.full((6, 1), float(threshold))), 24)
        theirs = [np.asarray(ImageOps.solarize(Image.fromarray(one), threshold)) for one in images]
        np.testing.assert_array_equal(ours, np.stack(theirs))
    order = torch.tensor(CHANNEL_ORDERS).T
    ours = back(color.permute_channels(planes(images), order), 24)
    np.testing.assert_array_equal(ours, [one[..., list(o)] for one, o in zip(images, CHANNEL_ORDERS, strict=True)])


def test_blur_equals_opencv() -> None:
    images = pictures(8, 24)
    sigmas = (0.0, 0.01, 0.1, 0.15, 0.5, 1.0, 1.7, 2.0)
    radius = kernel_radius(2.0, 24)
    ours = gaussian_blur(planes(images).view(3, 8, 24, 24), torch.tensor(sigmas), radius).permute(1, 2, 3, 0).numpy()
    for one, mine, sigma in zip(images.astype(np.float32), ours, sigmas, strict=True):
        if sigma < 0.15:
            np.testing.assert_allclose(mine, one, atol=1e-3)
            continue
        side = 2 * radius + 1
        same = cv2.GaussianBlur(one, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(mine, same, atol=2e-3)
        whole = cv2.GaussianBlur(one, (35, 35), sigma, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(mine - whole).max() < 0.5
    assert kernel_radius(2.0, 224) == 6
    assert kernel_radius(2.0, 4) == 3
    assert kernel_radius(2.0, 1) == 0
