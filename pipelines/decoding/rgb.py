"""An image of any kind to 8-bit RGB, the same for everything in this project that reads image files.

- Grey, palette, CMYK, YCbCr, CIELab, HSV and 1-bit images become RGB. Colour profiles are ignored; of several frames
  the first is taken.
- Transparency is laid over white.
- Of 16 bits, 0 becomes 0 and 65535 becomes 255. Integers of 32 bits are taken as they are if they are 0 to 255. Any
  others, and floats, are refused unless a range says which values are black and white.
- A range scales every image alike: its lower end and all below become 0, its upper end and all above 255.
- `upright` applies the EXIF orientation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.decoding.misread import WORDS, Kind, load
from pipelines.decoding.value_range import BYTES, ValueRange

STRIP = 1 << 20  # pixels that are turned into RGB at once, since the steps between hold up to 16 bytes a pixel
GIVE = "give the values that are black and white (--range LO,HI or --range auto; in Python value_range=(LO, HI))"
ORIENTATION = 0x0112  # EXIF tag; 1 is upright, and these operations make the others so
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image, scale: ValueRange | None = None) -> Image.Image:
    """Return an image in mode RGB, not yet upright.

    Args:
        image: of any mode, best as `Image.open` returns it: of an image that was decoded before, less is known.
        scale: the values of the file that become 0 and 255; None = all that its kind of pixels has.

    Raises:
        ValueError: it cannot be turned into RGB rightly; the message begins with a verb.
        Exception: of any kind, raised by Pillow for damaged files.
    """
    image, kind = load(image)
    if image.mode == "RGB" and kind.key is None and kind.lower is None and scale is None:
        return image
    if image.mode.startswith(("I", "F")):
        scale = _scale(image, kind, scale)
    elif kind.lower is not None:
        scale = scale or WORDS
    else:
        _check_bytes(kind, scale)
    # Where two images are held already, the result replaces one of them.
    rgb = Image.new("RGB", image.size) if kind.lower is None else image
    for box in _strips(image, kind):
        strip = _over_white(*_values(image, kind, box), kind.white_is_zero, scale)
        rgb.paste(strip.convert(rgb.mode), box)
    del kind  # and with it one of two images
    return rgb if rgb.mode == "RGB" else rgb.convert("RGB")


def extremes(image: Image.Image) -> ValueRange:
    """Return the smallest and the largest value of an image's visible pixels, in the units of its file.

    Raises:
        as `to_rgb`; ValueError, too, where fewer bits can be read than the file has, or where no pixel is visible.
    """
    image, kind = load(image)
    if kind.lower is None and not image.mode.startswith(("I", "F")):
        _check_bytes(kind, BYTES)
    return _extremes(image, kind)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 if it says none; except for JPEGs, decode the image first."""
    # Parsing EXIF costs as much as decoding a small JPEG, so it is asked only where there can be any.
    if image.format == "JPEG" and not ("exif" in image.info or "xmp" in image.info):
        return 1
    value: int = image.getexif().get(ORIENTATION, 1)
    return value if value in UPRIGHT else 1


def upright(image: Image.Image, value: int) -> Image.Image:
    """Return an image turned as its orientation says."""
    return image.transpose(UPRIGHT[value]) if value in UPRIGHT else image


def levels(values: NDArray[np.generic], scale: ValueRange) -> NDArray[np.uint8]:
    """Return values on the scale 0 to 255, rounded, with those outside of the range at its ends."""
    if values.dtype in (np.uint8, np.uint16):  # a table, since this is fast and takes little memory
        table: NDArray[np.uint8] = levels(np.arange(256**values.dtype.itemsize, dtype=np.float64), scale)
        found: NDArray[np.uint8] = table[values]
        return found
    scaled = (values.astype(np.float64) - scale.low) * (255 / (scale.high - scale.low))
    bytes_: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return bytes_


def _strips(image: Image.Image, kind: Kind) -> Iterator[tuple[int, int, int, int]]:
    """Return the boxes of strips of at most `STRIP` pixels, a quarter of it with a second decode, or of one row."""
    width, height = image.size
    rows = max(1, (STRIP if kind.lower is None else STRIP // 4) // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _check_bytes(kind: Kind, scale: ValueRange | None) -> None:
    if scale is None:
        return
    if kind.bits_lost:
        raise ValueError("has more bits in each channel than can be read here, so no range can scale its values")
    if scale.high > BYTES.high:
        raise ValueError(f"has 8 bits in each channel, and the range of values {scale} is for pictures with more")


def _extremes(image: Image.Image, kind: Kind) -> ValueRange:
    """Return the smallest and largest value that is visible, in units of the file."""
    low, high = np.inf, -np.inf
    for box in _strips(image, kind):
        values, opacity = _values(image, kind, box)
        visible = values if opacity is None else values[opacity > 0]
        if visible.size:
            # In this order, a minimum or maximum that is not a number stays so.
            low, high = float(np.minimum(visible.min(), low)), float(np.maximum(visible.max(), high))
    if low == np.inf and high == -np.inf:
        raise ValueError("has no pixel that is visible, and so no values")
    if not np.isfinite((low, high)).all():
        raise ValueError("has pixels that are not finite numbers")
    return ValueRange(low * kind.unit, high * kind.unit)


def _scale(image: Image.Image, kind: Kind, given: ValueRange | None) -> ValueRange:
    """Return which of Pillow's values become 0 and 255, for an image of integers or floats."""
    if image.mode.startswith("I;16"):
        scale = given or kind.natural
    else:
        low, high = _extremes(image, kind)
        scale = given or kind.natural
        what = "floating-point pixels" if image.mode == "F" else "integer pixels of 32 bits or with a sign"
        if scale is None or (given is None and not scale.low <= low <= high <= scale.high):
            raise ValueError(f"has {what} from {low:g} to {high:g}, whose scale is not known; {GIVE}")
    assert scale is not None
    return ValueRange(scale.low / kind.unit, scale.high / kind.unit)


def _values(
    image: Image.Image, kind: Kind, box: tuple[int, int, int, int]
) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
    """Return the pixels of some rows before they are scaled, and how opaque they are.

    Returns:
        values: [H, W] of grey or [H, W, 3] of colours; of 16 bits with a second decode, else in Pillow's units.
        opacity: [H, W], 0 to 255; None = all pixels are opaque.
    """
    strip = image.crop(box)
    if kind.lower is not None:
        return _words(strip, kind.lower.crop(box), kind)
    if strip.mode.startswith(("I", "F")):
        grey = _integers_or_floats(strip, kind)
        return grey, None if kind.key is None else _opaque(grey != kind.key)
    if kind.palette is not None:
        strip.putpalette(kind.palette)
    if kind.key is not None:
        strip.info["transparency"] = kind.key
    if strip.mode == "1":
        strip = strip.convert("L")
    if strip.mode == "La":  # grey, multiplied by its transparency
        grey_a, clear = (Image.fromarray(np.ascontiguousarray(np.asarray(strip)[..., band])) for band in (0, 1))
        strip = Image.merge("RGBa", (grey_a, grey_a, grey_a, clear))
    if not strip.has_transparency_data:
        return np.asarray(strip if strip.mode == "L" else strip.convert("RGB")), None
    strip = strip.convert("RGBA")
    return np.asarray(strip.convert("RGB")), np.asarray(strip.getchannel("A"))


def _integers_or_floats(strip: Image.Image, kind: Kind) -> NDArray[np.generic]:
    values: NDArray[np.generic] = np.asarray(strip)
    if kind.unsigned:
        return values.view(np.uint32)
    return values.astype(np.uint16, copy=False) if strip.mode.startswith("I;16") else values


def _words(upper: Image.Image, lower: Image.Image, kind: Kind) -> tuple[NDArray[np.uint16], NDArray[np.uint8] | None]:
    """Return values of 16 bits [H, W, 3], and how opaque they are, as `_values`."""
    if kind.packed:
        grey_and_clear = np.asarray(upper).view(">u2").astype(np.uint16)
        return grey_and_clear[..., [0, 0, 0]], levels(grey_and_clear[..., 1], WORDS)
    words: NDArray[np.uint16] = np.asarray(upper).astype(np.uint16)
    words <<= 8
    words |= np.asarray(lower)
    if words.shape[2] == 4:
        return words[..., :3], levels(words[..., 3], WORDS)
    return words, None if kind.key is None else _opaque((words != np.array(kind.key, dtype=np.uint16)).any(axis=2))


def _opaque(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(visible, np.uint8(255), np.uint8(0))


def _over_white(
    values: NDArray[np.generic], opacity: NDArray[np.uint8] | None, white_is_zero: bool, scale: ValueRange | None
) -> Image.Image:
    """Scale what `_values` returns, and lay it over white; `scale` is in its units, None for bytes as they are."""
    pixels = values if scale is None else levels(values, scale)
    colours = Image.fromarray(255 - pixels if white_is_zero else pixels).convert("RGB")
    if opacity is None:
        return colours
    colours.putalpha(Image.fromarray(opacity))
    white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, colours).convert("RGB")
