"""The photometric operations on a GPU as three Triton kernels, for all views of one size in one launch each.

    luma_sums     the pointwise operations before contrast, and the sums of brightness that contrast needs; where views
                  are cut on the GPU, `triton_cut.py` sums instead, in the same launch
    columns       all pointwise operations in each picture's own order, grey, and the blur along columns
    rows          the blur along rows, solarise, permute channels, normalise

`color.py` and `blur.py` define the operations, and these kernels are tested against them. No tracer of torch sees them,
so a thread may launch them while another one compiles or records. `columns` computes the pointwise operations once for
each tap of the blur, which is cheaper than to write and read the pixels once more.

A program works on one tile of one picture. Numbers of a picture that has no such operation leave it as it is, so
that pictures of different views share a launch.
N = pictures, P = pixels of a picture, T = tiles of a picture, K = numbers of a picture.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pipelines.augmentation.color import LUMA
from pipelines.plan.photometric import BLUR, CONTRAST, GRAYSCALE, HUE, NUMBERS, ORDER, PERMUTE, SATURATION, SOLARIZE

# Triton compiles these functions and infers the types of their arguments:
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

RADIUS = NUMBERS  # a further column: taps on each side of the blur's centre; 0 = no blur
COLUMNS = -(-(RADIUS + 1) // 4) * 4  # K: so that the rows of every group of views begin where 16 bytes do
TILE = 1024  # pixels of a program

_RED, _GREEN, _BLUE = (tl.constexpr(share) for share in LUMA)
_WHITE = tl.constexpr(255.0)
_CONTRAST, _SATURATION, _HUE = tl.constexpr(CONTRAST), tl.constexpr(SATURATION), tl.constexpr(HUE)
_ORDER, _GRAYSCALE, _BLUR = tl.constexpr(ORDER), tl.constexpr(GRAYSCALE), tl.constexpr(BLUR)
_SOLARIZE, _PERMUTE = tl.constexpr(SOLARIZE), tl.constexpr(PERMUTE)
_RADIUS, _COLUMNS = tl.constexpr(RADIUS), tl.constexpr(COLUMNS)


@triton.jit
def luma_sums(images, numbers, orders, sums, pixels, TILE: tl.constexpr):
    """Write the sum of luma of each tile before contrast.

    Args:
        images: uint8 [N, P, 3].
        numbers: float32 [N, K], columns as in `photometric.py`, and `RADIUS`.
        orders: int32 [24, 4], `JITTER_ORDERS`.
        sums: float32 [N, T]; written.
        pixels: P.
    """
    picture, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixel = tile * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    red, green, blue = _load(images + picture * pixels * 3, pixel, inside)
    luma = luma_before_contrast(red, green, blue, numbers, orders, picture, inside)
    tl.store(sums + picture * tl.num_programs(1) + tile, luma)


@triton.jit
def luma_before_contrast(red, green, blue, numbers, orders, picture, inside):
    """Return the sum of luma of the pixels inside, after the pointwise operations that precede the contrast."""
    red, green, blue = red.to(tl.float32), green.to(tl.float32), blue.to(tl.float32)
    numbers += picture * _COLUMNS
    order = orders + tl.load(numbers + _ORDER).to(tl.int32) * 4
    before = 1
    for slot in tl.static_range(4):
        operation = tl.load(order + slot)
        before = tl.where(operation == _CONTRAST, 0, before)
        if before == 1:
            red, green, blue = _jitter(red, green, blue, operation, tl.load(numbers + operation), 0.0)
    return tl.sum(tl.where(inside, red * _RED + green * _GREEN + blue * _BLUE, 0.0), 0)


@triton.jit
def columns(images, numbers, orders, sums, planes, height, width, tiles, TILE: tl.constexpr, TILES: tl.constexpr):
    """Write the pictures after the pointwise operations and the blur along columns.

    Args:
        images, numbers, orders, sums: as in `luma_sums`.
        planes: float32 [N, 3, P]; written.
        height, width: sides of the pictures.
        tiles: T, of the sums.
        TILES: a power of 2 of at least T.
    """
    picture, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = height * width
    numbers += picture * _COLUMNS
    pixel = tile * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    row, column = pixel // width, pixel % width
    every = tl.arange(0, TILES)
    mean = tl.sum(tl.load(sums + picture * tiles + every, mask=every < tiles, other=0.0), 0) / pixels
    order = orders + tl.load(numbers + _ORDER).to(tl.int32) * 4
    grey, radius = tl.load(numbers + _GRAYSCALE), tl.load(numbers + _RADIUS).to(tl.int32)
    sigma = tl.maximum(tl.load(numbers + _BLUR), 1e-3)
    total_red, total_green, total_blue = (
        tl.zeros([TILE], tl.float32),
        tl.zeros([TILE], tl.float32),
        tl.zeros([TILE], tl.float32),
    )
    total = 0.0
    for tap in range(-radius, radius + 1):
        red, green, blue = _load(images + picture * pixels * 3, _mirrored(row + tap, height) * width + column, inside)
        for slot in tl.static_range(4):
            operation = tl.load(order + slot)
            red, green, blue = _jitter(red, green, blue, operation, tl.load(numbers + operation), mean)
        if grey > 0:
            luma = red * _RED + green * _GREEN + blue * _BLUE
            red, green, blue = luma, luma, luma
        weight = _weight(tap, sigma)
        total_red += red * weight
        total_green += green * weight
        total_blue += blue * weight
        total += weight
    planes += picture * pixels * 3 + pixel
    tl.store(planes, total_red / total, mask=inside)
    tl.store(planes + pixels, total_green / total, mask=inside)
    tl.store(planes + 2 * pixels, total_blue / total, mask=inside)


@triton.jit
def rows(source, pixel_step, plane_step, numbers, channels, scale, shift, output, height, width, TILE: tl.constexpr):
    """Write normalised views.

    Args:
        source: [N, 3 P] of any number type; colour c of pixel p lies at c * plane_step + p * pixel_step.
        numbers: as in `luma_sums`.
        channels: int32 [6, 3], `CHANNEL_ORDERS`.
        scale, shift: float32 [3], the normalised value of v is v * scale + shift.
        output: [N, P, 3] of any floating type; written.
        height, width: sides of the pictures.
    """
    picture, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = height * width
    numbers += picture * _COLUMNS
    pixel = tile * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    row, column = pixel // width, pixel % width
    radius, threshold = tl.load(numbers + _RADIUS).to(tl.int32), tl.load(numbers + _SOLARIZE)
    sigma = tl.maximum(tl.load(numbers + _BLUR), 1e-3)
    channels += tl.load(numbers + _PERMUTE).to(tl.int32) * 3
    for channel in tl.static_range(3):
        plane = source + picture * pixels * 3 + tl.load(channels + channel) * plane_step
        value, total = tl.zeros([TILE], tl.float32), 0.0
        for tap in range(-radius, radius + 1):
            at = row * width + _mirrored(column + tap, width)
            weight = _weight(tap, sigma)
            value += tl.load(plane + at * pixel_step, mask=inside, other=0).to(tl.float32) * weight
            total += weight
        value = value / total
        value = tl.where(value < threshold, value, _WHITE - value)
        value = value * tl.load(scale + channel) + tl.load(shift + channel)
        to = output + picture * pixels * 3 + pixel * 3 + channel
        tl.store(to, value.to(output.dtype.element_ty), mask=inside)


@triton.jit
def _load(image, pixel, inside):
    red = tl.load(image + pixel * 3, mask=inside, other=0).to(tl.float32)
    green = tl.load(image + pixel * 3 + 1, mask=inside, other=0).to(tl.float32)
    blue = tl.load(image + pixel * 3 + 2, mask=inside, other=0).to(tl.float32)
    return red, green, blue


@triton.jit
def _mirrored(position, side):
    """Return the position inside a side, mirrored at its ends; -1 is 1."""
    position = tl.abs(position)
    return tl.where(position < side, position, 2 * side - 2 - position)


@triton.jit
def _weight(tap, sigma):
    ratio = tap / sigma
    return tl.exp(-0.5 * ratio * ratio)


@triton.jit
def _clamp(value):
    return tl.minimum(tl.maximum(value, 0.0), _WHITE)


@triton.jit
def _jitter(red, green, blue, operation, number, mean):
    """Apply one operation of ColorJitter; `mean` is the picture's mean luma, for contrast."""
    if operation == _HUE:
        red, green, blue = _hue(red, green, blue, number)
    else:
        added = tl.zeros_like(red)
        if operation == _CONTRAST:
            added += mean * (1 - number)
        if operation == _SATURATION:
            added += (red * _RED + green * _GREEN + blue * _BLUE) * (1 - number)
        red, green, blue = _clamp(red * number + added), _clamp(green * number + added), _clamp(blue * number + added)
    return red, green, blue


@triton.jit
def _hue(red, green, blue, turns):
    """Shift the hue by the formula of `color.hue`; without a shift, return the colours as they are."""
    if turns != 0:
        high = tl.maximum(tl.maximum(red, green), blue)
        low = tl.minimum(tl.minimum(red, green), blue)
        chroma = high - low
        hue = (green + blue - red - low) / tl.maximum(chroma, 1e-6) + 1
        hue = tl.where(green < blue, -hue, hue)
        red = _channel(hue, 0.0, turns, chroma, low)
        green = _channel(hue, 2.0, turns, chroma, low)
        blue = _channel(hue, 4.0, turns, chroma, low)
    return red, green, blue


@triton.jit
def _channel(hue, centre, turns, chroma, low):
    centre = centre - 6 * turns + 3
    centre = centre - tl.floor(centre / 6) * 6 - 3
    share = tl.abs(tl.abs(hue - centre) - 3) - 1
    return low + chroma * tl.minimum(tl.maximum(share, 0.0), 1.0)
