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
from tools.conversion.jpeg_check import decodes_cleanly

UNTOUCHED, REENCODED, STORED_RAW = 0, 1, 2
KINDS = ("untouched", "re-encoded", "raw")

RAW_LIMIT = 12 * 1024  # bytes
DEFAULT_QUALITY = 95
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


def _bounded(image: Image.Image, max_size: int | None) -> Image.Image:
    """Reduces the longer side to `max_size`: Lanczos, after a box reduction where it shrinks more than threefold."""
    if max_size is None or max(image.size) <= max_size:
        return image
    scale = max_size / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _statistics(image: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """Sums over an RGB image of its values and of their squares, and its extremes; whole numbers, so all are exact."""
    lowest, highest = zip(*image.getextrema(), strict=True)
    bounds = min(lowest), max(highest)
    if image.width * image.height > 4096:
        histogram = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
        return histogram @ LEVELS, histogram @ (LEVELS * LEVELS), bounds
    # For a small image the histogram is more numbers than the pixels. Too few here for a BLAS to start threads.
    values = np.frombuffer(image.tobytes(), dtype=np.uint8).astype(np.float64).reshape(-1, 3)
    ones = np.ones(len(values))
    return ones @ values, ones @ (values * values), bounds


def _encoded(image: Image.Image, settings: Settings) -> Encoded:
    """An RGB image whose bytes have to be made."""
    width, height = image.size
    if height > MAX_SIDE or width > MAX_SIDE:
        raise ValueError(f"has {width} x {height} pixels; a side may have {MAX_SIDE}, so reduce it with --max-size")
    statistics = _statistics(image)
    if settings.quality is None and height * width * 3 <= RAW_LIMIT:
        return Encoded(RAW, height, width, image.tobytes(), STORED_RAW, *statistics)
    quality = settings.quality or DEFAULT_QUALITY
    buffer = io.BytesIO()
    # 4:4:4 where the quality asks for it, else the usual 4:2:0.
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 95 else 2)
    return Encoded(JPEG, height, width, buffer.getvalue(), REENCODED, *statistics)


def encode_array(array: NDArray[np.uint8], settings: Settings) -> Encoded:
    """Pixels [H, W, 3] -> what is stored."""
    return _encoded(_bounded(to_rgb(Image.fromarray(array), settings.scale), settings.max_size), settings)


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
        rgb = to_rgb(image, settings.scale)
        turn = orientation(image)
        plain = (
            image.format in ("JPEG", "MPO")
            and image.mode in ("RGB", "L")
            and max(image.size) <= min(settings.max_size or MAX_SIDE, MAX_SIDE)
            and turn == 1
            and settings.scale is None
        )
    del image  # what was decoded, before more is made of it
    if plain and decodes_cleanly(data, rgb.height, rgb.width):
        return Encoded(JPEG, rgb.height, rgb.width, data, UNTOUCHED, *_statistics(rgb))
    return _encoded(_bounded(upright(rgb, turn), settings.max_size), settings)
