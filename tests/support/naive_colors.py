"""Pictures of every kind, and the photometric operations one picture at a time in float64, for the tests of both."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.plan.photometric import (
    BLUR,
    BRIGHTNESS,
    CHANNEL_ORDERS,
    CONTRAST,
    GRAYSCALE,
    HUE,
    JITTER_ORDERS,
    ORDER,
    PERMUTE,
    SATURATION,
    SOLARIZE,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Picture = NDArray[np.float64]


def pictures(count: int, size: int) -> NDArray[np.uint8]:
    """[N, size, size, 3]: smooth fields, some with noise, some with flat saturated, black, white and grey patches."""
    rng = np.random.default_rng(0)
    field = rng.uniform(0, 255, (count, 5, 5, 3)).astype(np.float32)
    smooth = np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in field])
    smooth[1::3] += rng.normal(0, 25, smooth[1::3].shape)
    patches = np.array([[255, 0, 0], [0, 255, 255], [0, 0, 0], [255, 255, 255], [90, 90, 90]])
    smooth[2::3, : size // 3, : len(patches) * 2] = np.repeat(patches, 2, axis=0)
    return np.asarray(np.clip(np.rint(smooth), 0, 255), dtype=np.uint8)


def planes(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(3, 0, 1, 2).flatten(2).float()


def back(x_CNP: Tensor, size: int) -> Picture:
    return x_CNP.view(3, -1, size, size).permute(1, 2, 3, 0).double().numpy()


# A naive reference: one picture [H, W, 3] of float64, one operation at a time.


def naive_luma(x: Picture) -> Picture:
    return np.asarray((19595 * x[..., 0] + 38470 * x[..., 1] + 7471 * x[..., 2]) / 65536)


def naive_hue(x: Picture, turns: float) -> Picture:
    out = np.empty_like(x)
    for where in np.ndindex(x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[where] / 255)
        out[where] = np.array(colorsys.hsv_to_rgb((h + turns) % 1, s, v)) * 255
    return out


def naive_jitter(x: Picture, operation: int, number: float) -> Picture:
    if operation == HUE:
        return naive_hue(x, number)
    grey = naive_luma(x)[..., None]
    other = {BRIGHTNESS: 0 * grey, CONTRAST: grey.mean() + 0 * grey, SATURATION: grey}[operation]
    return np.asarray(np.clip(other + number * (x - other), 0, 255))


def naive_blur(x: Picture, sigma: float, radius: int) -> Picture:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        x = np.apply_along_axis(np.convolve, axis, np.pad(x, pad, mode="reflect"), taps, "valid")
    return x


def naive_chain(image: NDArray[np.uint8], numbers: NDArray[np.float32], radius: int) -> Picture:
    x = image.astype(np.float64)
    if (numbers[:4] != (1, 1, 1, 0)).any():
        for operation in JITTER_ORDERS[int(numbers[ORDER])]:
            x = naive_jitter(x, operation, float(numbers[operation]))
    if numbers[GRAYSCALE]:
        x = np.repeat(naive_luma(x)[..., None], 3, axis=2)
    if numbers[BLUR]:
        x = naive_blur(x, float(numbers[BLUR]), radius)
    x = np.where(x < numbers[SOLARIZE], x, 255 - x)
    x = x[..., list(CHANNEL_ORDERS[int(numbers[PERMUTE])])]
    return (x / 255 - MEAN) / STD
