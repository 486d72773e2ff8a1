"""The image files that may be decoded, and the limits that their headers must keep before a pixel is decoded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 100_000_000  # larger ones are taken for decompression bombs: up to 12 bytes a pixel on the way to RGB
COSTLY = {"JPEG2000": 4, "WEBP": 2}  # formats whose decoders hold so many times as much, so that fewer pixels are taken
SCAN, MAX_SCANS = b"\xff\xda", 500  # of a progressive JPEG: 10 are usual, and a small file can ask for millions

# What may be decoded, as far as this Pillow can. It also has formats that start another program (EPS).
Image.init()
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
FORMATS = tuple(name for name in _FORMATS if name in Image.OPEN)
_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2 .j2k .avif"
SUFFIXES = frozenset(_SUFFIXES.split(" "))

# Pillow warns and refuses at limits of its own; ours is checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

# The first bytes of a TIFF, little- and big-endian, and of a BigTIFF.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open the bytes of an image file; no pixel is decoded yet.

    Args:
        max_pixels: of an image that is decoded at all; fewer of a `COSTLY` format.

    Raises:
        ValueError: the image is beyond a limit, or no kind of image that can be read.
        Exception: of any kind, raised by Pillow for damaged files.
    """
    if not data:
        raise ValueError("is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data[:4] not in TIFF:
            raise
        raise ValueError(
            "is a TIFF of a kind that cannot be identified here, such as several grey channels, floats of 16 or 64 "
            "bits, or a camera's raw data; save it as grey or RGB of 8 or 16 bits"
        ) from None
    width, height = image.size
    most = max_pixels // COSTLY.get(image.format or "", 1)
    if width * height > most:
        raise ValueError(f"has {width} x {height} pixels; at most {most:,} are decoded (--max-pixels)")
    if image.format in ("JPEG", "MPO") and _scans(data) > MAX_SCANS:  # elsewhere these bytes are pixels
        raise ValueError(f"has more than {MAX_SCANS} scans, each of which costs as much as a complete picture")
    return image


def _scans(data: bytes) -> int:
    """Return how often the marker of a scan occurs in a JPEG."""
    first, second = SCAN
    values = np.frombuffer(data, dtype=np.uint8)
    return int(np.count_nonzero((values[:-1] == first) & (values[1:] == second)))
