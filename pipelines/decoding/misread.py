"""What Pillow does not say, or gets wrong, about the pixels of a file: found in the header before they are decoded.

A kind of file that would be read wrongly is refused in one line, or is read rightly here. Seen with Pillow 12 and 13:

- TIFF where 0 is white, of 16 bits or floats, is not inverted (1 to 8 bits are).
- TIFF of 12 packed bits comes as 16 bits with values up to 4095.
- Compressed big-endian TIFF of signed integers or of floats comes with its bytes swapped.
- TIFF of signed bytes is read as unsigned, and 32-bit unsigned integers as signed.
- TIFF palettes of values up to 255 become black, as 65535 is white in the standard.
- PNG of 1, 2 or 4 grey bits: the transparent value is not scaled with the pixels.
- PGM files of more than 8 bits are scaled to 65535, whatever their own maximum is.
- Of 16 bits in each of several channels, the upper 8 are kept. A second decode gives the lower ones.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipelines.decoding.value_range import BYTES, ValueRange

WORDS = ValueRange(0, 65535)
TWELVE_BITS = ValueRange(0, 4095)
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _COLORMAP, _SUBSAMPLING, _INK_SET = 262, 258, 339, 320, 530, 332  # TIFF tags
_SIGNED = 2
_FAX = ("tiff_ccitt", "group3", "group4", "tiff_raw_16")
_RIGHT_ORDER = {"I;32BS": "I;32S", "I;16BS": "I;16S", "F;32BF": "F;32F"}  # libtiff has swapped these bytes already
_LOWER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # order that finds the lower bytes
_GREY_KEYS = {"1": 255, "L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Kind:
    """How the pixels of a file are to be understood.

    Attributes:
        natural: for integers and floats in one channel, the values that are black and white; None if not known.
        unit: a value of the file for each of Pillow's.
        white_is_zero: whether the values must still be inverted.
        unsigned: whether negative values are large ones.
        key: the value that is transparent, in Pillow's units or, with `lower`, in those of 16 bits.
        palette: that of the file, where Pillow's is wrong.
        lower: an image of the lower bytes, where Pillow has only the upper ones of 16 bits; its mode is the image's.
        packed: whether image and `lower` are one: upper and lower byte of a grey value, and of its transparency.
        bits_lost: whether the file has more bits than can be read.
    """

    natural: ValueRange | None = None
    unit: float = 1.0
    white_is_zero: bool = False
    unsigned: bool = False
    key: int | tuple[int, ...] | None = None
    palette: bytes | None = None
    lower: Image.Image | None = None
    packed: bool = False
    bits_lost: bool = False


def load(image: Image.Image) -> tuple[Image.Image, Kind]:
    """Decode an image; return it, with how its pixels are to be understood.

    Args:
        image: as `Image.open` returns it. If it was decoded before, less is known about it.

    Raises:
        ValueError: its pixels would be read wrongly.
        Exception: of any kind, raised by Pillow for damaged files.
    """
    form, mode = image.format or "", image.mode
    raw, details = _raw_mode(image)
    natural = WORDS if mode.startswith("I;16") else BYTES if mode == "I" else None
    unit, key, lower, bits_lost, packed = 1.0, image.info.get("transparency"), None, False, False
    if form == "PPM" and mode == "I":
        natural = ValueRange(0, details[1]) if len(details) == 2 else WORDS
        unit = natural.high / WORDS.high
    elif form == "PPM":
        bits_lost = len(details) == 2 and details[1] > BYTES.high
    elif raw in _GREY_KEYS and isinstance(key, int):
        key *= _GREY_KEYS[raw]
    base, _, order = raw.partition(";16")
    if order and base in ("RGB", "RGBA", "RGBX", "LA"):
        lower, packed = _second_decode(image, base, order), base == "LA"
        image = lower if packed else image
    elif order and not raw.startswith("I"):
        bits_lost = True
    if form == "TIFF":
        return _load_tiff(image, raw, Kind(natural, lower=lower, bits_lost=bits_lost))
    image.load()
    key = key if isinstance(key, int | tuple) else None
    return image, Kind(natural, unit, key=key, lower=lower, packed=packed, bits_lost=bits_lost)


def _raw_mode(image: Image.Image) -> tuple[str, tuple[Any, ...]]:
    """Return the layout of the pixels in the file, with the decoder's other arguments; empty for a decoded image."""
    if not getattr(image, "tile", None):
        return "", ()
    arguments = image.tile[0][3]  # type: ignore[attr-defined]  # of ImageFile
    details = arguments if isinstance(arguments, tuple) else (arguments,)
    return (details[0] if details and isinstance(details[0], str) else ""), details


def _load_tiff(image: Image.Image, raw: str, kind: Kind) -> tuple[Image.Image, Kind]:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]  # of TiffImageFile
    mode, compression = image.mode, image.info.get("compression", "raw")
    bits, signed = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    photometric = tags.get(_PHOTOMETRIC)
    if photometric is None and mode in ("1", "L", "I", "I;16", "F") and compression not in _FAX:
        raise ValueError("is a TIFF that does not say whether 0 is black or white (PhotometricInterpretation)")
    if signed and max(bits) == 8:
        raise ValueError("has signed 8-bit pixels, which are not read here; save it with unsigned ones")
    if photometric == 5 and tags.get(_INK_SET, 1) != 1:
        raise ValueError("has separated inks other than cyan, magenta, yellow and black; save it as RGB")
    if mode == "YCbCr" and compression == "raw" and tuple(tags.get(_SUBSAMPLING, (1, 1))) != (1, 1):
        raise ValueError("has colours of a lower resolution, uncompressed, which is not read here; save it as RGB")
    if tags.prefix == b"MM" and compression != "raw" and (mode == "F" or (mode == "I" and signed)):
        if raw not in _RIGHT_ORDER and not raw.endswith("N"):
            raise ValueError("has compressed big-endian values that were decoded before; give the file instead")
        image.tile = [  # type: ignore[attr-defined]  # of ImageFile
            tile._replace(args=(_RIGHT_ORDER.get(raw, raw), *tile.args[1:]))
            for tile in image.tile  # type: ignore[attr-defined]
        ]
    colours = tags.get(_COLORMAP, ()) if mode in ("P", "PA") else ()
    palette = None
    if colours and 0 < max(colours) < 256:
        third = len(colours) // 3
        palette = bytes(colours[channel * third + index] for index in range(third) for channel in range(3))
    image.load()
    return image, Kind(
        natural=TWELVE_BITS if mode == "I;16" and tuple(bits) == (12,) else kind.natural,
        white_is_zero=photometric == 0 and (mode.startswith("I;16") or mode in ("I", "F")),
        unsigned=mode == "I" and not signed,
        palette=palette,
        lower=kind.lower,
        bits_lost=kind.bits_lost or (kind.lower is None and max(bits) > 8 and not mode.startswith(("I", "F"))),
    )


def _second_decode(image: Image.Image, base: str, order: str) -> Image.Image:
    """Decode the lower bytes of an image of 16 bits in each channel; for grey with transparency, all bytes."""
    file: Any = image.fp  # type: ignore[attr-defined]  # of ImageFile
    at = file.tell()
    file.seek(0)
    again: Any = Image.open(io.BytesIO(file.read()), formats=(image.format or "",))
    file.seek(at)
    raw = "RGBA" if base == "LA" else f"{base};16{_LOWER[order]}"
    again.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in again.tile
    ]
    again.load()
    opened: Image.Image = again
    return opened
