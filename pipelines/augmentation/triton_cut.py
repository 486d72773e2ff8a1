"""Cut, resize and flip all views of one size on a GPU, in one Triton kernel, by any filter of `RESIZE`.

`pillow_kernels.py` and `area_filter.py` say what the filters do. A pixel of a view gathers the pixels of the crop that
it is made of. While the pixels of a view are at hand, their luma is summed for the contrast that may follow.

Pillow computes weights in float64, of which many GPUs do a 64th of their rate in float32. Here distances are exact
integers and only their shares are float32, so that a weight differs from Pillow's by at most its last bit of 22, and a
level, once in thousands, by one.
N = views of all samples of one size and filter, D = side of a view, P = pixels of all images, T = tiles of a view.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pipelines.augmentation.triton_kernels import luma_before_contrast

# Triton compiles these functions and infers the types of their arguments:
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

# Columns of the table: the image's first pixel, its width, top, left, height and width of the crop, flip, and one
# without meaning, so that the rows of every group of views begin where 16 bytes do.
COLUMNS = 8
TILE = 256  # pixels of a program

_COLUMNS = tl.constexpr(COLUMNS)
_BITS, _HALF, _ONE = tl.constexpr(22), tl.constexpr(1 << 21), tl.constexpr(float(1 << 22))


@triton.jit
def cut_pillow(
    pixels,
    table,
    size,
    numbers,
    orders,
    output,
    sums,
    CUBIC: tl.constexpr,
    SUMS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write views by Pillow's bilinear or bicubic filter.

    Args:
        pixels: uint8 [P, 3].
        table: int64 [N, COLUMNS].
        size: D.
        numbers, orders: as in `triton_kernels.luma_sums`.
        output: uint8 [N, D, D, 3]; written.
        sums: float32 [N, T], the sum of luma of each tile before contrast; written if `SUMS`.
    """
    view, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start, stride, height, width, flip = _crop(table + view * _COLUMNS)
    pixel = tile * TILE + tl.arange(0, TILE)
    inside = pixel < size * size
    pixel = tl.minimum(pixel, size * size - 1)  # those outside are computed like the last one, and not stored
    y, x = pixel // size, pixel % size
    height, width = height.to(tl.int32), width.to(tl.int32)
    first_y, taps_y, sum_y = _span(y, height, size, CUBIC)
    first_x, taps_x, sum_x = _span(x, width, size, CUBIC)
    total_red, total_green, total_blue = _halves(TILE), _halves(TILE), _halves(TILE)
    for tap_y in range(taps_y):
        red, green, blue = _halves(TILE), _halves(TILE), _halves(TILE)
        line = start + tl.minimum(first_y + tap_y, height - 1) * stride
        for tap_x in range(taps_x):
            weight = _weight(first_x + tap_x, x, width, size, sum_x, CUBIC)
            at = (line + tl.minimum(first_x + tap_x, width - 1)) * 3
            red += tl.load(pixels + at, mask=inside, other=0).to(tl.int32) * weight
            green += tl.load(pixels + at + 1, mask=inside, other=0).to(tl.int32) * weight
            blue += tl.load(pixels + at + 2, mask=inside, other=0).to(tl.int32) * weight
        weight = _weight(first_y + tap_y, y, height, size, sum_y, CUBIC)
        total_red += _level(red) * weight
        total_green += _level(green) * weight
        total_blue += _level(blue) * weight
    red, green, blue = _level(total_red), _level(total_green), _level(total_blue)
    _store(output, view, size, y, x, flip, inside, red, green, blue)
    if SUMS:
        _store_sum(sums, view, tile, red, green, blue, numbers, orders, inside)


@triton.jit
def cut_area(pixels, table, size, numbers, orders, output, sums, SUMS: tl.constexpr, TILE: tl.constexpr):
    """Write views by the area filter; arguments as in `cut_pillow`."""
    view, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start, stride, height, width, flip = _crop(table + view * _COLUMNS)
    pixel = tile * TILE + tl.arange(0, TILE)
    inside = pixel < size * size
    pixel = tl.minimum(pixel, size * size - 1)  # those outside are computed like the last one, and not stored
    y, x = pixel // size, pixel % size
    bilinear = (height < size) | (width < size)
    # OpenCV's first pixel may be one before that of the interval, and an interval touches at most length / size + 2.
    first_y, first_x = tl.maximum(y * height // size - 1, 0), tl.maximum(x * width // size - 1, 0)
    red, green, blue = tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32)
    for tap_y in range(height // size + 4):
        share_y = _share(first_y + tap_y, y, height, size, bilinear)
        line = start + tl.minimum(first_y + tap_y, height - 1) * stride
        for tap_x in range(width // size + 4):
            share = share_y * _share(first_x + tap_x, x, width, size, bilinear)
            at = (line + tl.minimum(first_x + tap_x, width - 1)) * 3
            red += tl.load(pixels + at, mask=inside, other=0).to(tl.float32) * share
            green += tl.load(pixels + at + 1, mask=inside, other=0).to(tl.float32) * share
            blue += tl.load(pixels + at + 2, mask=inside, other=0).to(tl.float32) * share
    red, green, blue = tl.floor(red + 0.5), tl.floor(green + 0.5), tl.floor(blue + 0.5)
    _store(output, view, size, y, x, flip, inside, red, green, blue)
    if SUMS:
        _store_sum(sums, view, tile, red, green, blue, numbers, orders, inside)


@triton.jit
def _crop(row):
    """Return the crop's first pixel, pixels from row to row, height, width and flip of a row of the table."""
    first, stride, top, left = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    return first + top * stride + left, stride, tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)


@triton.jit
def _halves(TILE: tl.constexpr):
    return tl.full([TILE], _HALF, tl.int32)


@triton.jit
def _level(total):
    return tl.minimum(tl.maximum(total >> _BITS, 0), 255)


@triton.jit
def _store(output, view, size, y, x, flip, inside, red, green, blue):
    column = tl.where(flip != 0, size - 1 - x, x)
    to = output + view * size * size * 3 + (y * size + column) * 3
    tl.store(to, red.to(tl.uint8), mask=inside)
    tl.store(to + 1, green.to(tl.uint8), mask=inside)
    tl.store(to + 2, blue.to(tl.uint8), mask=inside)


@triton.jit
def _store_sum(sums, view, tile, red, green, blue, numbers, orders, inside):
    luma = luma_before_contrast(red, green, blue, numbers, orders, view, inside)
    tl.store(sums + view * tl.num_programs(1) + tile, luma)


@triton.jit
def _span(d, length, size, CUBIC: tl.constexpr):
    """Return the first pixel of the crop for each output pixel d, the number of taps, and the sum of the filter."""
    support = tl.maximum(length, size) * (2 if CUBIC else 1)  # in units of 1 / size pixels
    first = tl.maximum(((2 * d + 1) * length + size - 2 * support) // (2 * size), 0)
    taps = 2 * support // size + 2
    total = tl.zeros_like(first).to(tl.float32)
    for tap in range(taps):
        total += _filter(first + tap, d, length, size, CUBIC)
    return first, taps, total


@triton.jit
def _weight(i, d, length, size, total, CUBIC: tl.constexpr):
    """Return the weight of pixel i of the crop in output pixel d, in units of 2^-22."""
    weight = _filter(i, d, length, size, CUBIC) / total * _ONE
    return (weight + tl.where(weight >= 0, 0.5, -0.5)).to(tl.int32)


@triton.jit
def _filter(i, d, length, size, CUBIC: tl.constexpr):
    """Return the filter at the distance between the centres of pixel i and of output pixel d, not normalised."""
    distance = tl.abs((2 * i + 1) * size - (2 * d + 1) * length)  # in units of 1 / (2 size) pixels
    reach = 2 * tl.maximum(length, size)  # where the bilinear filter ends, in the same units
    if CUBIC:
        x = distance.to(tl.float32) / reach.to(tl.float32)
        near = (1.5 * x - 2.5) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * -0.5
        share = tl.where(x < 1, near, tl.where(x < 2, far, 0.0))
    else:
        share = tl.maximum(reach - distance, 0).to(tl.float32)
    return tl.where(i < length, share, 0.0)


@triton.jit
def _share(i, d, length, size, bilinear):
    """Return how much of output pixel d is pixel i of the crop, as `area_shares` does."""
    return _before(i + 1, d, length, size, bilinear) - _before(i, d, length, size, bilinear)


@triton.jit
def _before(edge, d, length, size, bilinear):
    """Return how much of output pixel d lies before an edge between pixels."""
    before = tl.maximum(edge * size - d * length, 0).to(tl.float32) / length.to(tl.float32)
    first = tl.floor(d.to(tl.float64) * (1 / (size / length.to(tl.float64)))).to(tl.int64)
    behind = (edge >= first + 2) | ((edge > first) & (before == 0))
    return tl.where((bilinear & behind) | (edge >= length), 1.0, tl.minimum(before, 1.0))
