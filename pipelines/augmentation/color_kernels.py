"""The photometric operations on a CPU, compiled by Numba: one picture at a time, from uint8 to its normalised view.

`color.py` and `blur.py` define the operations, and these kernels are tested against them. There, every operation passes
over a complete batch. Here, a picture stays in a core's cache through all of its own operations, operations that it
does not get cost nothing, and the functions hold no lock, so threads run them side by side.

Colour planes are float32 from 0 to 255, one after the other, so each loop runs over contiguous numbers and becomes
vector instructions. Literals are float32 constants, because a plain one would turn the arithmetic into doubles.
Numba compiles once per machine and keeps the machine code beside this file.
C = 3 colours, N = pictures, P = photometric numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np

from pipelines.augmentation.color import LUMA
from pipelines.plan.photometric import (
    BLUR,
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

# The compiled functions have no annotations, because Numba infers the types of their arguments:
# mypy: allow-untyped-defs

_RED, _GREEN, _BLUE = (np.float32(share) for share in LUMA)
_ZERO, _ONE, _THREE, _WHITE = np.float32(0), np.float32(1), np.float32(3), np.float32(255)
_TINY = np.float32(1e-6)
_LIGHT = np.float32(1e-6)  # taps with a smaller weight change no result
_SIXTEEN, _HALF, _BIT = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)  # bfloat16 is the upper half of a float32
_JITTER_ORDERS, _CHANNEL_ORDERS = np.array(JITTER_ORDERS), np.array(CHANNEL_ORDERS)

# Sums may be reordered, which vector instructions need. A division by zero gives infinity and is not checked.
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "nnan"})


def compiled_before() -> bool:
    """Whether this machine has the machine code of these kernels already; compiling it takes about 20 seconds."""
    source = Path(__file__)
    indexes = Path(augment.stats.cache_path).glob(f"{source.stem}.augment-*.nbi")
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in indexes)


@_jit
def augment(images, numbers, scale_C, shift_C, jitter, radius, table, rounds, output, start, stop):
    """Augment pictures start to stop of one view.

    Args:
        images: uint8 [N, H, W, 3].
        numbers: float32 [N, NUMBERS], columns as in `photometric.py`.
        scale_C, shift_C: the normalised value of v is v * scale + shift.
        jitter: bool [4], which operations of ColorJitter have a strength above zero.
        radius: taps on each side of the Gaussian's centre; 0 = no blur.
        table: [256, 3], the normalised value of every level in the output's type, for pictures without any operation.
        rounds: whether the output holds the bits of bfloat16.
        output: [N, H, W, 3], uint16 for bfloat16, else float32; written.
        start, stop: range of the pictures.
    """
    _, height, width, _ = images.shape
    planes = np.empty((3, height * width), np.float32)
    spare = np.empty((height, width), np.float32)
    padded = np.empty(width + 2 * radius, np.float32)
    for picture in range(start, stop):
        number_P = numbers[picture]
        jittered = False
        for operation in range(4):
            jittered |= jitter[operation] and number_P[operation] != (_ZERO if operation == HUE else _ONE)
        plain = not jittered and number_P[GRAYSCALE] == 0 and number_P[BLUR] == 0
        if plain and number_P[SOLARIZE] > _WHITE and number_P[PERMUTE] == 0:
            _look_up(images[picture], table, output[picture])
            continue
        _split(images[picture], planes)
        if jittered:
            order = _JITTER_ORDERS[int(number_P[ORDER])]
            for operation in order:
                if jitter[operation]:
                    _jitter(planes, operation, number_P[operation])
        if number_P[GRAYSCALE] > 0:
            _grayscale(planes)
        if number_P[BLUR] > 0 and radius > 0:
            _blur(planes, spare, padded, number_P[BLUR], radius)
        order = _CHANNEL_ORDERS[int(number_P[PERMUTE])]
        _write(planes, order, number_P[SOLARIZE], scale_C, shift_C, rounds, output[picture].reshape(-1))


@_jit
def _look_up(image, table, output):
    height, width, _ = image.shape
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                output[row, column, channel] = table[image[row, column, channel], channel]


@_jit
def _split(image, planes):
    pixels = image.reshape(-1)
    red, green, blue = planes[0], planes[1], planes[2]
    for p in range(red.size):
        red[p], green[p], blue[p] = pixels[3 * p], pixels[3 * p + 1], pixels[3 * p + 2]


@_jit
def _clamp(value):
    value = value if value > _ZERO else _ZERO
    return value if value < _WHITE else _WHITE


@_jit
def _jitter(planes, operation, number):
    """Apply one operation of ColorJitter in place."""
    red, green, blue = planes[0], planes[1], planes[2]
    if operation == HUE:
        _hue(red, green, blue, number)
    elif operation == SATURATION:
        for p in range(red.size):
            grey = (red[p] * _RED + green[p] * _GREEN + blue[p] * _BLUE) * (_ONE - number)
            red[p] = _clamp(red[p] * number + grey)
            green[p] = _clamp(green[p] * number + grey)
            blue[p] = _clamp(blue[p] * number + grey)
    else:
        added = _ZERO
        if operation == CONTRAST:
            total = _ZERO
            for p in range(red.size):
                total += red[p] * _RED + green[p] * _GREEN + blue[p] * _BLUE
            added = total / np.float32(red.size) * (_ONE - number)
        for channel in range(3):
            plane = planes[channel]
            for p in range(plane.size):
                plane[p] = _clamp(plane[p] * number + added)


@_jit
def _hue(red, green, blue, turns):
    """Apply the formula of `color.hue` in place."""
    centre = np.empty(3, np.float32)
    for channel in range(3):
        centre[channel] = (2 * channel - 6 * np.float64(turns) + 3) % 6 - 3
    centre_red, centre_green, centre_blue = centre[0], centre[1], centre[2]
    for p in range(red.size):
        r, g, b = red[p], green[p], blue[p]
        high, low = (r if r > g else g), (r if r < g else g)
        high, low = (high if high > b else b), (low if low < b else b)
        chroma = high - low
        hue = (g + b - r - low) / (chroma if chroma > _TINY else _TINY) + _ONE
        hue = -hue if g < b else hue
        red[p] = _channel(hue - centre_red, chroma, low)
        green[p] = _channel(hue - centre_green, chroma, low)
        blue[p] = _channel(hue - centre_blue, chroma, low)


@_jit
def _channel(distance, chroma, low):
    share = abs(abs(distance) - _THREE) - _ONE
    share = share if share > _ZERO else _ZERO
    share = share if share < _ONE else _ONE
    return low + chroma * share


@_jit
def _grayscale(planes):
    red, green, blue = planes[0], planes[1], planes[2]
    for p in range(red.size):
        red[p] = red[p] * _RED + green[p] * _GREEN + blue[p] * _BLUE
    green[:] = red
    blue[:] = red


@_jit
def _blur(planes, spare, padded, sigma, radius):
    """Blur as `blur.py` does: along columns into `spare`, then along rows, with mirrored ends, back into `planes`."""
    height, width = spare.shape
    weight = np.empty(radius + 1, np.float32)
    for tap in range(radius + 1):
        weight[tap] = np.exp(np.float32(-0.5) * np.square(np.float32(tap) / sigma))
    weight /= np.float32(2) * weight.sum() - weight[0]
    while radius > 0 and weight[radius] < _LIGHT:
        radius -= 1
    for channel in range(3):
        picture = planes[channel].reshape(height, width)
        for row in range(height):
            target, source = spare[row], picture[row]
            for column in range(width):
                target[column] = source[column] * weight[0]
            for tap in range(1, radius + 1):
                below = row + tap
                above, below = picture[abs(row - tap)], picture[below if below < height else 2 * height - 2 - below]
                share = weight[tap]
                for column in range(width):
                    target[column] += (above[column] + below[column]) * share
        for row in range(height):
            target, source = picture[row], spare[row]
            for column in range(width):
                padded[radius + column] = source[column]
            for tap in range(1, radius + 1):
                padded[radius - tap] = source[tap]
                padded[radius + width - 1 + tap] = source[width - 1 - tap]
            for column in range(width):
                target[column] = source[column] * weight[0]
            for tap in range(1, radius + 1):
                left, right, share = padded[radius - tap :], padded[radius + tap :], weight[tap]
                for column in range(width):
                    target[column] += (left[column] + right[column]) * share


@_jit
def _write(planes, order, threshold, scale_C, shift_C, rounds, output):
    """Solarise, permute channels and normalise; with `rounds`, round to the bits of bfloat16, to nearest even."""
    normalised = np.empty(planes.shape[1], np.float32)
    bits = normalised.view(np.uint32)
    for channel in range(3):
        plane, scale, shift = planes[order[channel]], scale_C[channel], shift_C[channel]
        for p in range(plane.size):
            value = plane[p]
            value = value if value < threshold else _WHITE - value
            normalised[p] = value * scale + shift
        if rounds:
            for p in range(plane.size):
                output[3 * p + channel] = (bits[p] + _HALF + ((bits[p] >> _SIXTEEN) & _BIT)) >> _SIXTEEN
        else:
            for p in range(plane.size):
                output[3 * p + channel] = normalised[p]
