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
    deep = image.mode.startswith(("I", "F"))
    if not deep and kind.lower is None:
        _check_bytes(kind, scale)
    elif deep:
        scale = _scale(image, kind, scale)
    # Where two images are held already, the result replaces one of them.
    rgb = Image.new("RGB", image.size) if kind.lower is None else image
    for box in _strips(image, STRIP if kind.lower is None else STRIP // 4):
        lower = kind.lower and kind.lower.crop(box)
        rgb.paste(_strip_to_rgb(image.crop(box), lower, kind, scale).convert(rgb.mode), box)
    del kind  # and with it one of two images
    return rgb if rgb.mode == "RGB" else rgb.convert("RGB")


def extremes(image: Image.Image) -> ValueRange:
    """Return the smallest and the largest value of an image, in the units of its file, without transparency.

    Raises:
        as `to_rgb`; ValueError, too, where fewer bits can be read than the file has.
    """
    image, kind = load(image)
    if image.mode.startswith(("I", "F")):
        return ValueRange(*_extremes(image, kind))
    if kind.lower is not None:
        found = [_words(image.crop(box), kind.lower.crop(box), kind.packed)[..., :3] for box in _strips(image)]
        return ValueRange(min(int(words.min()) for words in found), max(int(words.max()) for words in found))
    _check_bytes(kind, BYTES)
    strips = [np.asarray(image.crop(box).convert("RGB")) for box in _strips(image)]
    return ValueRange(min(int(strip.min()) for strip in strips), max(int(strip.max()) for strip in strips))


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
    if values.dtype == np.uint16:  # a table, since this is fast and takes little memory
        table: NDArray[np.uint8] = levels(np.arange(65536, dtype=np.float64), scale)
        found: NDArray[np.uint8] = table[values]
        return found
    scaled = (values.astype(np.float64) - scale.low) * (255 / (scale.high - scale.low))
    bytes_: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return bytes_


def _strips(image: Image.Image, pixels: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Return the boxes of strips of at most so many pixels, or of one row."""
    width, height = image.size
    rows = max(1, (pixels or STRIP) // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _check_bytes(kind: Kind, scale: ValueRange | None) -> None:
    if scale is None:
        return
    if kind.bits_lost:
        raise ValueError("has more bits in each channel than can be read here, so no range can scale its values")
    if scale.high > BYTES.high:
        raise ValueError(f"has 8 bits in each channel, and the range of values {scale} is for pictures with more")


def _extremes(image: Image.Image, kind: Kind) -> tuple[float, float]:
    """Return the smallest and largest of integers or floats, in units of the file."""
    found = [_values(image.crop(box), kind) for box in _strips(image)]
    low, high = min(float(values.min()) for values in found), max(float(values.max()) for values in found)
    if not np.isfinite((low, high)).all():
        raise ValueError("has pixels that are not finite numbers")
    return low * kind.unit, high * kind.unit


def _values(strip: Image.Image, kind: Kind) -> NDArray[np.generic]:
    values: NDArray[np.generic] = np.asarray(strip)
    if kind.unsigned:
        return values.view(np.uint32)
    return values.astype(np.uint16, copy=False) if strip.mode.startswith("I;16") else values


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


def _strip_to_rgb(strip: Image.Image, lower: Image.Image | None, kind: Kind, scale: ValueRange | None) -> Image.Image:
    """Turn a copy of some rows into RGB, over white; `scale` is in Pillow's units."""
    if kind.palette is not None:
        strip.putpalette(kind.palette)
    if lower is not None:
        return _over_white(_from_words(_words(strip, lower, kind.packed), kind, scale or WORDS))
    if strip.mode.startswith(("I", "F")):
        assert scale is not None
        values = _values(strip, kind)
        grey = levels(values, scale)
        if kind.white_is_zero:
            grey = 255 - grey
        if kind.key is not None:
            grey[values == kind.key] = 255  # transparent, so white
        return Image.fromarray(grey).convert("RGB")
    if kind.key is not None:
        strip.info["transparency"] = kind.key
    if strip.mode == "1":
        strip = strip.convert("L")
    if strip.mode == "La":  # grey, multiplied by its transparency
        grey_a, clear = (Image.fromarray(np.ascontiguousarray(np.asarray(strip)[..., band])) for band in (0, 1))
        strip = Image.merge("RGBa", (grey_a, grey_a, grey_a, clear))
    strip = strip.convert("RGBA" if strip.has_transparency_data else "RGB")
    if scale is not None:
        table = levels(np.arange(256), scale).tolist() * 3
        strip = strip.point(table + (list(range(256)) if strip.mode == "RGBA" else []))
    return _over_white(strip)


def _words(upper: Image.Image, lower: Image.Image, packed: bool) -> NDArray[np.uint16]:
    """Return values of 16 bits [H, W, 3 or 4]."""
    if packed:
        grey_and_clear = np.asarray(upper).view(">u2").astype(np.uint16)
        return grey_and_clear[..., [0, 0, 0, 1]]
    words: NDArray[np.uint16] = np.asarray(upper).astype(np.uint16)
    words <<= 8
    words |= np.asarray(lower)
    return words


def _from_words(words: NDArray[np.uint16], kind: Kind, scale: ValueRange) -> Image.Image:
    """Values of 16 bits [H, W, 3 or 4] to RGB or, with transparency, RGBA."""
    colours = levels(words[..., :3], scale)
    if words.shape[2] == 4:
        return Image.fromarray(np.concatenate((colours, levels(words[..., 3:], WORDS)), axis=2))
    if kind.key is None:
        return Image.fromarray(colours)
    opaque = (words != np.array(kind.key, dtype=np.uint16)).any(axis=2)
    return Image.fromarray(np.dstack((colours, np.where(opaque, 255, 0).astype(np.uint8))))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
