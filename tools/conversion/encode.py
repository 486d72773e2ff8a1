"""One image of any kind -> the bytes that go into the data set. Pure functions, no knowledge of files.

- Grey, palette, CMYK, YCCK, 1-bit and 16-bit images become 8-bit RGB; 16 bits are divided by 257. Transparency is laid
  over white. Colour profiles are ignored; of several frames the first is taken.
- EXIF orientation is applied.
- A JPEG that needs no change keeps its very bytes; so does a grey one, which every decoder here turns into RGB.
- Anything else is stored raw, without loss, if it takes at most 12 KiB so (64 x 64), else as JPEG.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.formats.image_table import JPEG, MAX_SIDE, RAW
from tools.conversion.jpeg_check import decodes_cleanly

UNTOUCHED, REENCODED, STORED_RAW = 0, 1, 2
KINDS = ("untouched", "re-encoded", "raw")

MAX_PIXELS = 100_000_000  # larger ones are taken for decompression bombs: up to 12 bytes a pixel on the way to RGB
COSTLY = {"JPEG2000": 4, "WEBP": 2}  # formats whose decoders hold so many times as much, so that fewer pixels are taken
SCAN, MAX_SCANS = b"\xff\xda", 500  # of a progressive JPEG: 10 are usual, and a small file can ask for millions
STRIP = 1 << 20  # pixels that are turned into RGB at once
RAW_LIMIT = 12 * 1024  # bytes
DEFAULT_QUALITY = 95
LEVELS = np.arange(256, dtype=np.float64)
ORIENTATION = 0x0112  # EXIF tag; 1 is upright, and the others are mended by
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What may be decoded, as far as this Pillow can. It also has formats that start another program (EPS).
Image.init()
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
FORMATS = tuple(name for name in _FORMATS if name in Image.OPEN)
_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2 .j2k .avif"
SUFFIXES = frozenset(_SUFFIXES.split(" "))

# Pillow warns and refuses at limits of its own; ours is checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
        max_size: bound of the longer side, pixels; None = as it is.
        quality: of JPEGs that we encode, 1 to 100; None = 95, with small images raw.
        max_pixels: of an image that is decoded at all; fewer of a `COSTLY` format.
    """

    max_size: int | None = None
    quality: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def keep(self) -> bool:
        """Whether nothing is asked that would change an image that was stored before."""
        return self.max_size is None and self.quality is None


@dataclass(frozen=True)
class Encoded:
    """A stored image.

    Attributes:
        mode: JPEG or RAW.
        height, width: pixels.
        data: the bytes.
        kind: UNTOUCHED, REENCODED or STORED_RAW.
        sums, squares: per channel, the sum of the pixels 0 to 255 and of their squares; exact integers in float64 [3].
    """

    mode: int
    height: int
    width: int
    data: bytes
    kind: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow -> RGB; in strips, since the steps between hold several copies, of up to 8 bytes a pixel."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    width, height = image.size
    rows = max(1, STRIP // width)
    if rows >= height:
        return _strip_to_rgb(image)
    rgb = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        rgb.paste(_strip_to_rgb(image.crop((0, top, width, min(top + rows, height)))), (0, top))
    return rgb


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"has integer pixels from {values.min()} to {values.max()}; only 8 and 16 bits are known")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("has floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        solid = image.convert("RGBA")
        white = Image.new("RGBA", solid.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, solid).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    # Parsing EXIF costs as much as decoding a small JPEG, so it is asked only where there can be any.
    if image.format == "JPEG" and not ("exif" in image.info or "xmp" in image.info):
        return 1
    value = image.getexif().get(ORIENTATION, 1)
    return value if value in UPRIGHT else 1


def _bounded(image: Image.Image, max_size: int | None) -> Image.Image:
    """Reduces the longer side to `max_size`: Lanczos, after a box reduction where it shrinks more than threefold."""
    if max_size is None or max(image.size) <= max_size:
        return image
    scale = max_size / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _statistics(image: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over an RGB image of its values and of their squares; whole numbers, so exact by either way."""
    if image.width * image.height > 4096:
        histogram = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
        return histogram @ LEVELS, histogram @ (LEVELS * LEVELS)
    # For a small image the histogram is more numbers than the pixels. Too few here for a BLAS to start threads.
    values = np.frombuffer(image.tobytes(), dtype=np.uint8).astype(np.float64).reshape(-1, 3)
    ones = np.ones(len(values))
    return ones @ values, ones @ (values * values)


def _encoded(image: Image.Image, settings: Settings) -> Encoded:
    """An RGB image whose bytes have to be made."""
    width, height = image.size
    if height > MAX_SIDE or width > MAX_SIDE:
        raise ValueError(f"has {width} x {height} pixels; a side may have {MAX_SIDE}, so reduce it with --max-size")
    sums, squares = _statistics(image)
    if settings.quality is None and height * width * 3 <= RAW_LIMIT:
        return Encoded(RAW, height, width, image.tobytes(), STORED_RAW, sums, squares)
    quality = settings.quality or DEFAULT_QUALITY
    buffer = io.BytesIO()
    # 4:4:4 where the quality asks for it, else the usual 4:2:0.
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 95 else 2)
    return Encoded(JPEG, height, width, buffer.getvalue(), REENCODED, sums, squares)


def encode_array(array: NDArray[np.uint8], settings: Settings) -> Encoded:
    """Pixels [H, W, 3] -> what is stored."""
    return _encoded(_bounded(Image.fromarray(array), settings.max_size), settings)


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
    if not data:
        raise ValueError("is empty")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        most = settings.max_pixels // COSTLY.get(image.format or "", 1)
        if width * height > most:
            raise ValueError(f"has {width} x {height} pixels; at most {most:,} are decoded (--max-pixels)")
        if image.format in ("JPEG", "MPO") and data.count(SCAN) > MAX_SCANS:  # elsewhere these bytes are pixels
            raise ValueError(f"has more than {MAX_SCANS} scans, each of which costs as much as a whole picture")
        image.load()
        orientation = _orientation(image)
        plain = (
            image.format in ("JPEG", "MPO")
            and image.mode in ("RGB", "L")
            and max(width, height) <= min(settings.max_size or MAX_SIDE, MAX_SIDE)
            and orientation == 1
        )
        rgb = _rgb(image)
    del image  # what was decoded, before more is made of it
    if plain and decodes_cleanly(data, height, width):
        return Encoded(JPEG, height, width, data, UNTOUCHED, *_statistics(rgb))
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    return _encoded(_bounded(rgb, settings.max_size), settings)
