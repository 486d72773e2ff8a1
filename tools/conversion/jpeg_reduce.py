"""A JPEG to a smaller JPEG without a detour through RGB: each of its planes is decoded, reduced and encoded.

A JPEG holds brightness and two colour planes, and these often at half of the resolution. As RGB they would be enlarged,
converted, reduced three times over, converted back and halved again. Where a photo is reduced to a third or less, only
the low frequencies of its blocks are decoded, which halves, quarters or eighths its sides.
"""

from __future__ import annotations

import ctypes
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.decoding.rgb import upright
from tools.conversion.jpeg_decode import decode
from tools.conversion.reduce import FILTER
from tools.conversion.turbojpeg import (
    ACCURATE,
    COLOUR_STEP,
    FULL_COLOUR,
    GREY,
    NO_COLOUR,
    NO_REALLOC,
    QUARTER_COLOUR,
    YCBCR,
    compressor,
    decompressor,
    functions,
)

MOST_HALVINGS = 3  # a block of 8 x 8 pixels becomes one
SPARE = 1.5  # pixels along a side that are decoded for each that is kept, so that the filter has some to average


class Reduced(NamedTuple):
    """A smaller JPEG: its bytes, and the pixels [H, W, 3] that they are decoded to."""

    data: bytes
    pixels: NDArray[np.uint8]


def halvings(side: int, target: int) -> int:
    """Return how often the longer side may be halved while it is decoded, if it is reduced to `target` afterwards."""
    return max(times for times in range(MOST_HALVINGS + 1) if times == 0 or side >= SPARE * target * 2**times)


def reduce_jpeg(data: bytes, size: tuple[int, int], turn: int, quality: int, full_colour: bool) -> Reduced | None:
    """Reduce a JPEG; None after an error or a warning, or where its colours are of another kind.

    Args:
        size: width and height to reduce it to, before it is turned.
        turn: its EXIF orientation.
        full_colour: whether colours are stored at the full resolution, else at half of it in both directions.
    """
    if turn != 1 and not full_colour and (size[0] % 2 or size[1] % 2):
        return None  # turned, its last halved row or column could be the first, which a JPEG cannot say
    found = [ctypes.c_int() for _ in range(4)]
    if functions().tjDecompressHeader3(decompressor(), data, len(data), *map(ctypes.byref, found)) != 0:
        return None
    width, height, sampling, space = (number.value for number in found)
    if space not in (YCBCR, GREY) or sampling not in (*COLOUR_STEP, NO_COLOUR):
        return None
    times = halvings(max(width, height), max(size))
    planes = _planes(data, -(-width // 2**times), -(-height // 2**times), sampling)
    if planes is None:
        return None
    step = 1 if full_colour else 2
    small = -(-size[0] // step), -(-size[1] // step)
    targets, steps = [size, small, small], [(1, 1), *[COLOUR_STEP.get(sampling, (1, 1))] * 2]
    reduced = []
    for plane, target, (across, down) in zip(planes, targets, steps, strict=False):
        beyond = (1, 1) if plane is planes[0] else (small[0] * step / size[0], small[1] * step / size[1])
        extent = width / 2**times / across * beyond[0], height / 2**times / down * beyond[1]
        image = Image.fromarray(_extended(plane, ceil(extent[1]), ceil(extent[0])))
        reduced.append(upright(image.resize(target, FILTER, box=(0, 0, *extent)), turn))
    if sampling == NO_COLOUR:
        reduced += [upright(Image.new("L", small, 128), turn)] * 2
    sampling, turned = FULL_COLOUR if full_colour else QUARTER_COLOUR, reduced[0].size
    arrays = [_padded(image, plane, turned, sampling) for plane, image in enumerate(reduced)]
    made = _encode(arrays, turned, sampling, quality)
    pixels = decode(made, turned[1], turned[0])
    return None if pixels is None else Reduced(made, pixels)


def _planes(data: bytes, width: int, height: int, sampling: int) -> list[NDArray[np.uint8]] | None:
    """Decode the planes of a JPEG at this width and height, which are its own or halved ones."""
    library, number = functions(), 1 if sampling == NO_COLOUR else 3
    sides = [
        (library.tjPlaneHeight(plane, height, sampling), library.tjPlaneWidth(plane, width, sampling))
        for plane in range(number)
    ]
    planes = [np.empty(shape, dtype=np.uint8) for shape in sides]
    numbers = decompressor(), data, len(data), _pointers(planes), width, None, height, ACCURATE
    return planes if library.tjDecompressToYUVPlanes(*numbers) == 0 else None


def _extended(values: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return a plane with at least these sides, by repeating its last row and column."""
    more = max(0, rows - values.shape[0]), max(0, columns - values.shape[1])
    return np.pad(values, ((0, more[0]), (0, more[1])), mode="edge") if any(more) else values


def _padded(image: Image.Image, plane: int, size: tuple[int, int], sampling: int) -> NDArray[np.uint8]:
    """Return a plane with the sides that libjpeg-turbo reads, which are even for brightness above halved colours."""
    columns, rows = (
        functions().tjPlaneWidth(plane, size[0], sampling),
        functions().tjPlaneHeight(plane, size[1], sampling),
    )
    return np.ascontiguousarray(_extended(np.asarray(image), rows, columns))


def _encode(planes: list[NDArray[np.uint8]], size: tuple[int, int], sampling: int, quality: int) -> bytes:
    """Encode three planes as a JPEG.

    Raises:
        ValueError: libjpeg-turbo refuses them.
    """
    library, (width, height) = functions(), size
    buffer = np.empty(library.tjBufSize(width, height, sampling), dtype=np.uint8)
    target, length = ctypes.c_void_p(buffer.ctypes.data), ctypes.c_ulong(len(buffer))
    numbers = width, None, height, sampling, ctypes.byref(target), ctypes.byref(length), quality, ACCURATE | NO_REALLOC
    if library.tjCompressFromYUVPlanes(compressor(), _pointers(planes), *numbers) != 0:
        raise ValueError("cannot be encoded again")
    return buffer[: length.value].tobytes()


def _pointers(planes: list[NDArray[np.uint8]]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in planes))
