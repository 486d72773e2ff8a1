"""Pillow's bilinear and bicubic resize of a crop, bit for bit, compiled by Numba for CPUs.

Pillow (src/libImaging/Resample.c, as torchvision's RandomResizedCrop calls it) resizes the rows, then the columns. A
pixel of the view is the weighted mean of the pixels within the filter's support around its centre. The support grows
with the scale where the image shrinks ("antialiasing"). Pixels outside the crop have no weight. Weights are rounded to
22 binary digits, and both passes round and clip their results to 8 bits.

Pillow 13 resizes the columns first where that is cheaper. Results of the two orders are at most one level apart for the
bilinear filter, and a few isolated pixels of the bicubic filter differ more, because it overshoots and is clipped
between the passes. The published results are of older versions, so the rows come first here.
D = side of the view, T = taps of a pixel of the view.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

# The compiled functions have no annotations, because Numba infers the types of their arguments:
# mypy: allow-untyped-defs

_BITS = 22  # fractional digits of a weight: 32, less 8 for a pixel, 1 for the sign and 1 for sums above 1
_ONE = 1 << _BITS
_HALF = np.int32(1 << (_BITS - 1))
_RED, _GREEN, _BLUE, _PIXEL = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)  # unsigned: no index from the end

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


@_jit
def resize(source, stride, height, width, cubic, target):
    """Resize one crop.

    Args:
        source: uint8, the memory from the crop's first pixel on.
        stride: bytes from one row of the image to the next.
        height, width: of the crop, in pixels.
        cubic: whether the filter is bicubic.
        target: uint8 [D, D, 3]; written.
    """
    size = len(target)
    half = np.empty((height, 3 * size), np.uint8)
    _resize_rows(source, stride, *weights(width, size, cubic), half)
    _resize_columns(half, *weights(height, size, cubic), target.reshape(size, 3 * size))


@_jit
def weights(length, size, cubic):
    """Return the first pixel [D] of the crop that each pixel of the view is made of, and its weights int32 [D, T].

    T is the same for all; pixels beyond Pillow's own bounds weigh 0.

    Args:
        length: side of the crop in pixels.
        size: D.
    """
    scale = length / size
    wide = max(scale, 1.0)
    support = wide * (2.0 if cubic else 1.0)
    first_D, stop_D, taps = np.empty(size, np.int64), np.empty(size, np.int64), 0
    for d in range(size):
        centre = (d + 0.5) * scale
        first_D[d] = max(int(centre - support + 0.5), 0)
        stop_D[d] = min(int(centre + support + 0.5), length)
        taps = max(taps, stop_D[d] - first_D[d])
    weight_DT, share_T = np.zeros((size, taps), np.int32), np.empty(taps, np.float64)
    narrow = 1.0 / wide
    for d in range(size):
        first, count, total = first_D[d], stop_D[d] - first_D[d], 0.0
        for tap in range(count):
            share_T[tap] = _share((tap + first - (d + 0.5) * scale + 0.5) * narrow, cubic)
            total += share_T[tap]
        first_D[d] = min(first, length - taps)
        for tap in range(count):
            weight = share_T[tap] / total * _ONE
            weight_DT[d, tap + first - first_D[d]] = int(weight + 0.5) if weight >= 0 else int(weight - 0.5)
    return first_D, weight_DT


@_jit
def _share(x, cubic):
    """Return the filter at x pixels from its centre: a triangle, or the cubic of Keys with a = -0.5."""
    x = abs(x)
    if not cubic:
        return max(1.0 - x, 0.0)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


@_jit
def _rounded(total):
    return np.uint8(min(max(total >> _BITS, 0), 255))


@_jit
def _resize_rows(source, stride, first_D, weight_DT, target):
    """Write [height, 3 D]."""
    size, taps = weight_DT.shape
    for row in range(len(target)):
        line, out = source[row * stride :], target[row]
        for d in range(size):
            at, to = _PIXEL * np.uint64(first_D[d]), _PIXEL * np.uint64(d)
            red, green, blue = _HALF, _HALF, _HALF
            for tap in range(taps):
                weight = weight_DT[d, tap]
                red += np.int32(line[at + _RED]) * weight
                green += np.int32(line[at + _GREEN]) * weight
                blue += np.int32(line[at + _BLUE]) * weight
                at += _PIXEL
            out[to + _RED], out[to + _GREEN], out[to + _BLUE] = _rounded(red), _rounded(green), _rounded(blue)


@_jit
def _resize_columns(source, first_D, weight_DT, target):
    """Write [D, 3 D] from [height, 3 D]; every loop over a row becomes vector instructions."""
    size, taps = weight_DT.shape
    total = np.empty(source.shape[1], np.int32)
    for d in range(size):
        out = target[d]
        total[:] = _HALF
        for tap in range(taps):
            line, weight = source[first_D[d] + tap], weight_DT[d, tap]
            for x in range(len(total)):
                total[x] += np.int32(line[x]) * weight
        for x in range(len(total)):
            out[x] = _rounded(total[x])
