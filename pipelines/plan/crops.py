"""Crop boxes and flips: torchvision's RandomResizedCrop and CenterCrop as pure functions of a key.

S = samples. A box is (top, left, height, width), in pixels of the decoded image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.plan.random_numbers import uniform
from pipelines.plan.views import View

_TRIES = 10  # as in torchvision: ten draws, then the largest centred box with a valid aspect ratio
# First counter of each random number of a key (see random_numbers.py). Left follows top; photometric.py starts at 64.
_AREA, _RATIO, _TOP, _FLIP = 0, 10, 20, 22

Sides = NDArray[np.int64]


def boxes(view: View, key_S: NDArray[np.uint64], height_S: Sides, width_S: Sides) -> NDArray[np.int32]:
    """Return the crop box of each sample for `view`.

    Args:
        view: the description to draw from.
        key_S: [S], one key for each (seed, epoch, sample, view).
        height_S, width_S: [S] sides of the decoded images, in pixels.

    Returns:
        int32 [S, 4], (top, left, height, width) inside each image.
    """
    if view.scale is None:
        return _center_boxes(view.center, height_S, width_S)
    return _random_boxes(view, key_S, height_S, width_S)


def flips(view: View, key_S: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return whether each sample is mirrored left to right: bool [S]."""
    flipped: NDArray[np.bool_] = uniform(key_S, 1, start=_FLIP)[:, 0] < view.flip
    return flipped


def _center_boxes(keep: float, height_S: Sides, width_S: Sides) -> NDArray[np.int32]:
    side = np.maximum(np.rint(np.minimum(height_S, width_S) * keep), 1)
    top, left = np.rint((height_S - side) / 2), np.rint((width_S - side) / 2)
    return np.stack([top, left, side, side], axis=1).astype(np.int32)


def _random_boxes(view: View, key_S: NDArray[np.uint64], height_S: Sides, width_S: Sides) -> NDArray[np.int32]:
    height, width, fits = _drawn_shape(view, key_S, height_S, width_S, tries=1)
    rest = np.flatnonzero(~fits)  # most first draws fit; only the other samples need more numbers
    if len(rest):
        height[rest], width[rest], fits[rest] = _drawn_shape(view, key_S[rest], height_S[rest], width_S[rest], _TRIES)
        rest = rest[~fits[rest]]
        height[rest], width[rest] = _largest_shape(view.ratio, height_S[rest], width_S[rest])
    corner_S2 = uniform(key_S, 2, start=_TOP)
    top = np.floor(corner_S2[:, 0] * (height_S - height + 1))
    left = np.floor(corner_S2[:, 1] * (width_S - width + 1))
    top[rest], left[rest] = (height_S[rest] - height[rest]) // 2, (width_S[rest] - width[rest]) // 2
    return np.stack([top, left, height, width], axis=1).astype(np.int32)


def _drawn_shape(
    view: View, key_S: NDArray[np.uint64], height_S: Sides, width_S: Sides, tries: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return height and width [S] of the first of `tries` drawn boxes that fits each image, and whether one does."""
    assert view.scale is not None
    low, high = view.scale
    log_low, log_high = np.log(view.ratio)
    area = (height_S * width_S)[:, None] * (low + (high - low) * uniform(key_S, tries, start=_AREA))
    ratio = np.exp(log_low + (log_high - log_low) * uniform(key_S, tries, start=_RATIO))
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths > 0) & (heights > 0) & (widths <= width_S[:, None]) & (heights <= height_S[:, None])
    first, rows = fits.argmax(axis=1), np.arange(len(height_S))
    return heights[rows, first], widths[rows, first], fits[rows, first]


def _largest_shape(
    ratio: tuple[float, float], height_S: Sides, width_S: Sides
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return height and width [S] of the largest box with an aspect ratio in the range; at least one pixel a side."""
    aspect_S = width_S / height_S
    height = np.where(aspect_S < ratio[0], np.rint(width_S / ratio[0]), height_S)
    width = np.where(aspect_S > ratio[1], np.rint(height_S * ratio[1]), width_S)
    return np.maximum(height, 1), np.maximum(width, 1)
