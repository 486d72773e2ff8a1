"""One image of any kind -> the bytes that go into the data set. Pure functions, no knowledge of files.

- Images of every kind become 8-bit RGB, as `pipelines/decoding/rgb.py` says, and EXIF orientation is applied.
- A JPEG that needs no change keeps its very bytes; so does a grey one, which every decoder here turns into RGB.
- Anything else is stored raw, without loss, if it takes at most 12 KiB so (64 x 64), else as JPEG.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.decoding.image_file import MAX_PIXELS, open_image
from pipelines.decoding.rgb import orientation, to_rgb, upright
from pipelines.decoding.value_range import ValueRange
from pipelines.formats.image_table import JPEG, MAX_SIDE, RAW
from tools.conversion.jpeg_decode import decode
from tools.conversion.jpeg_reduce import reduce_jpeg
from tools.conversion.reduce import bounded, reduced_size
from tools.conversion.turbojpeg import available

UNTOUCHED, REENCODED, STORED_RAW = 0, 1, 2
KINDS = ("untouched", "re-encoded", "raw")

RAW_LIMIT = 12 * 1024  # bytes
DEFAULT_QUALITY = 95
FULL_COLOUR_FROM = 95  # the quality from which on colours are stored at the full resolution (4:4:4 instead of 4:2:0)
LEVELS = np.arange(256, dtype=np.float64)


@dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
        max_size: bound of the longer side, pixels; None = as it is.
        quality: of JPEGs that we encode, 1 to 100; None = 95, with small images raw.
        max_pixels: of an image that is decoded at all; fewer of a `COSTLY` format.
        scale: the values of the files that become 0 and 255; None = all that their kind of pixels has.
    """

    max_size: int | None = None
    quality: int | None = None
    max_pixels: int = MAX_PIXELS
    scale: ValueRange | None = None

    @property
    def keep(self) -> bool:
        """Whether nothing is asked that would change an image that was stored before."""
        return self.max_size is None and self.quality is None and self.scale is None


@dataclass(frozen=True)
class Encoded:
    """A stored image.

    Attributes:
        mode: JPEG or RAW.
        height, width: pixels.
        data: the bytes.
        kind: UNTOUCHED, REENCODED or STORED_RAW.
        sums, squares: per channel, the sum of the pixels 0 to 255 and of their squares; exact integers in float64 [3].
        extremes: the smallest and largest value of all channels; None where the image was not decoded.
    """

    mode: int
    height: int
    width: int
    data: bytes
    kind: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    extremes: tuple[int, int] | None = None


def _statistics(image: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """Sums over an RGB image of its values and of their squares, and its extremes; whole numbers, so all are exact."""
    if image.width * image.height > 4096:
        histogram = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
        used = np.flatnonzero(histogram.any(axis=0))
        return histogram @ LEVELS, histogram @ (LEVELS * LEVELS), (int(used[0]), int(used[-1]))
    lowest, highest = zip(*image.getextrema(), strict=True)
    # For a small image the histogram is more numbers than the pixels. Too few here for a BLAS to start threads.
    values = np.frombuffer(image.tobytes(), dtype=np.uint8).astype(np.float64).reshape(-1, 3)
    ones = np.ones(len(values))
    return ones @ values, ones @ (values * values), (min(lowest), max(highest))


def _encoded(image: Image.Image, settings: Settings) -> Encoded:
    """An RGB image whose bytes have to be made."""
    width, height = image.size
    if height > MAX_SIDE or width > MAX_SIDE:
        raise ValueError(f"has {width} x {height} pixels; a side may have {MAX_SIDE}, so reduce it with --max-size")
    statistics = _statistics(image)
    if _stored_raw(width, height, settings):
        return Encoded(RAW, height, width, image.tobytes(), STORED_RAW, *statistics)
    quality = settings.quality or DEFAULT_QUALITY
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= FULL_COLOUR_FROM else 2)
    return Encoded(JPEG, height, width, buffer.getvalue(), REENCODED, *statistics)


def _stored_raw(width: int, height: int, settings: Settings) -> bool:
    return settings.quality is None and height * width * 3 <= RAW_LIMIT


def encode_array(array: NDArray[np.uint8], settings: Settings) -> Encoded:
    """Pixels [H, W, 3] -> what is stored."""
    return _encoded(bounded(to_rgb(Image.fromarray(array), settings.scale), settings.max_size), settings)


def encode_again(data: bytes, mode: int, height: int, width: int, settings: Settings) -> Encoded:
    """An image that was stored before -> itself, undecoded, with sums of 0; unless the settings ask for another."""
    if settings.keep:
        kind = STORED_RAW if mode == RAW else UNTOUCHED
        return Encoded(mode, height, width, data, kind, np.zeros(3), np.zeros(3))
    if mode == RAW:
        return encode_array(np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3), settings)
    return encode_bytes(data, settings)


def encode_bytes(data: bytes, settings: Settings) -> Encoded:
    """The bytes of an image file -> what is stored.

    Raises:
        Exception: of whatever kind Pillow's decoders raise on a damaged or foreign file; a ValueError of ours where an
            image is whole but cannot be taken.
    """
    with open_image(data, settings.max_pixels) as image:
        plain = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and settings.scale is None
        if plain and available():
            if (made := _encoded_jpeg(image, data, settings)) is not None:
                return made
            plain = False  # training could not read it
        rgb = to_rgb(image, settings.scale)
        turn = orientation(image)
    del image  # what was decoded, before more is made of it
    if plain and turn == 1 and max(rgb.size) <= _longest(settings):
        return Encoded(JPEG, rgb.height, rgb.width, data, UNTOUCHED, *_statistics(rgb))
    return _encoded(bounded(upright(rgb, turn), settings.max_size), settings)


def _encoded_jpeg(image: Image.Image, data: bytes, settings: Settings) -> Encoded | None:
    """A grey or RGB JPEG, decoded once by FFCV's library; None if FFCV would not take it."""
    (width, height), turn = image.size, orientation(image)
    if settings.max_size is not None and max(width, height) > settings.max_size:
        size = reduced_size(width, height, settings.max_size)
        if max(size) <= MAX_SIDE and not _stored_raw(*size, settings):
            quality = settings.quality or DEFAULT_QUALITY
            reduced = reduce_jpeg(data, size, turn, quality, quality >= FULL_COLOUR_FROM)
            if reduced is not None:
                small = Image.fromarray(reduced.pixels)
                return Encoded(JPEG, small.height, small.width, reduced.data, REENCODED, *_statistics(small))
    pixels = decode(data, height, width)
    if pixels is None:
        return None
    rgb = Image.fromarray(pixels)
    del pixels
    if turn == 1 and max(width, height) <= _longest(settings):
        return Encoded(JPEG, height, width, data, UNTOUCHED, *_statistics(rgb))
    return _encoded(bounded(upright(rgb, turn), settings.max_size), settings)


def _longest(settings: Settings) -> int:
    """Return the longest side that an image may have to be stored as it is."""
    return min(settings.max_size or MAX_SIDE, MAX_SIDE)
