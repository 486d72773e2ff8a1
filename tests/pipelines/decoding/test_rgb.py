"""Every kind of picture that the decoders open becomes the right RGB, or is refused in one line."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from pipelines.decoding import rgb
from pipelines.decoding.image_file import open_image
from pipelines.decoding.rgb import extremes, orientation, to_rgb, upright
from pipelines.decoding.value_range import ValueRange, value_range
from tests.support.deep_files import png, tiff
from tests.support.images import encoded

RAMP = np.linspace(0, 255, 40)[None].repeat(30, 0)  # dark on the left
BYTES = np.rint(RAMP).astype(np.uint8)
WORDS = np.random.default_rng(0).integers(0, 65536, (9, 8, 4)).astype(np.uint16)
TO_BYTES = np.rint(WORDS / 257).astype(int)
COLOURS = np.random.default_rng(1).integers(0, 256, (9, 8, 3)).astype(np.uint8)
DEFLATE = pytest.mark.parametrize("compressed", [False, True])


def pixels(data: bytes, scale: ValueRange | None = None) -> np.ndarray[Any, Any]:
    image = open_image(data)
    found = to_rgb(image, scale)
    assert found.mode == "RGB"
    return np.asarray(upright(found, orientation(image))).astype(int)


def over_white(colours: np.ndarray[Any, Any], clear: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Colours [H, W, 3] and opacity [H, W], both 0 to 255."""
    share = clear[..., None] / 255
    return share * colours + (1 - share) * 255


@DEFLATE
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_tiff(bits: int, order: str, compressed: bool) -> None:
    values = BYTES if bits == 8 else np.rint(RAMP * 257).astype(np.uint16)
    found = pixels(tiff(values, order=order, compressed=compressed))
    assert np.abs(found - RAMP[..., None]).max() <= 0.51


@DEFLATE
@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero(bits: int, compressed: bool) -> None:
    values = 255 - BYTES if bits == 8 else 65535 - np.rint(RAMP * 257).astype(np.uint16)
    found = pixels(tiff(values, 0, compressed=compressed))
    assert np.abs(found - RAMP[..., None]).max() <= 0.51


def test_white_is_zero_of_floats_with_a_range() -> None:
    found = pixels(tiff((4 - RAMP / 51).astype(np.float32) * 51, 0, sample_format=3), ValueRange(-51, 204))
    assert np.abs(found - RAMP[..., None]).max() <= 0.51


@pytest.mark.parametrize("sample_format", [1, 2])
def test_wide_integers_of_a_byte_are_taken_as_they_are(sample_format: int) -> None:
    assert (pixels(tiff(BYTES.astype(np.uint32), sample_format=sample_format)) == BYTES[..., None]).all()


@DEFLATE
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "sample_format"), [(np.int16, 2), (np.int32, 2), (np.float32, 3)])
def test_a_range_of_signed_integers_and_floats(kind: type, sample_format: int, order: str, compressed: bool) -> None:
    data = tiff((RAMP * 100 - 500).astype(kind), sample_format=sample_format, order=order, compressed=compressed)
    found = pixels(data, ValueRange(-500, 25000))
    assert np.abs(found - RAMP[..., None]).max() <= 0.52
    assert extremes(open_image(data)) == (-500, 25000)
    with pytest.raises(ValueError, match=r"from -500 to 25000, whose scale is not known; give .*--range LO,HI"):
        pixels(data)


def test_unsigned_integers_above_the_signed_ones() -> None:
    values = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32)
    assert pixels(tiff(values), ValueRange(0, 2**32 - 1))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match=r"from 0 to 4.29497e\+09, whose scale is not known"):
        pixels(tiff(values))


def test_floats_that_are_no_numbers() -> None:
    values = np.array([[0, np.nan, 1]], dtype=np.float32)
    for scale in (None, ValueRange(0, 1)):
        with pytest.raises(ValueError, match="not finite"):
            pixels(tiff(values, sample_format=3), scale)


def test_twelve_bits_in_sixteen_with_a_range() -> None:
    values = (RAMP * 16).astype(np.uint16)
    for data in (encoded(Image.fromarray(values), "PNG"), tiff(values), tiff(values, compressed=True, order=">")):
        assert pixels(data).max() == 16  # 4080 of 65535
        assert np.abs(pixels(data, ValueRange(0, 4080)) - RAMP[..., None]).max() <= 0.54
        assert pixels(data, ValueRange(1000, 2000))[0, [0, -1], 0].tolist() == [0, 255]
        assert extremes(open_image(data)) == (0, 4080)


def test_packed_twelve_bits() -> None:
    values = np.array([[0, 1000, 4095, 2048]])
    data = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in values.reshape(-1, 2))
    found = pixels(tiff(values.astype(np.uint16), tags={258: (3, [12])}, data=data))
    assert found[0, :, 0].tolist() == np.rint(values[0] * 255 / 4095).astype(int).tolist()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_in_a_png(channels: int) -> None:
    data = png(WORDS[..., :channels], 16)
    colours = np.repeat(TO_BYTES[..., :1], 3, 2) if channels < 3 else TO_BYTES[..., :3]
    expected = over_white(colours, TO_BYTES[..., channels - 1]) if channels in (2, 4) else colours
    assert np.abs(pixels(data) - expected).max() <= (1 if channels in (2, 4) else 0)
    low, high = extremes(open_image(data))
    grey_or_colours = WORDS[..., :1] if channels < 3 else WORDS[..., :3]
    assert (low, high) == (grey_or_colours.min(), grey_or_colours.max())


@DEFLATE
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_colour_with_a_range(order: str, compressed: bool) -> None:
    values = WORDS[..., :3] // 16
    for data in (tiff(values, 2, order=order, compressed=compressed), png(values, 16)):
        assert (pixels(data, ValueRange(0, 4095)) == np.rint(values * (255 / 4095))).all()
    clear = np.dstack((values, WORDS[..., 3:]))
    data = tiff(clear, 2, order=order, compressed=compressed, tags={338: (3, [2])})
    expected = over_white(values * (255 / 4095), TO_BYTES[..., 3])
    assert np.abs(pixels(data, ValueRange(0, 4095)) - expected).max() <= 1
    grey = png(np.dstack((values[..., :1], WORDS[..., 3:])), 16)
    expected = over_white(np.repeat(values[..., :1] * (255 / 4095), 3, 2), TO_BYTES[..., 3])
    assert np.abs(pixels(grey, ValueRange(0, 4095)) - expected).max() <= 1


def test_sixteen_bits_of_which_the_lower_ones_cannot_be_read() -> None:
    inks = tiff(WORDS, 5)
    assert pixels(inks).shape == (9, 8, 3)
    with pytest.raises(ValueError, match="more bits in each channel than can be read here"):
        pixels(inks, ValueRange(0, 4095))
    netpbm = b"P6 1 1 1023\n" + b"\1\xff" * 3
    assert (pixels(netpbm) == 127).all()
    with pytest.raises(ValueError, match="more bits in each channel than can be read here"):
        pixels(netpbm, ValueRange(0, 1023))


def test_strips_make_no_difference_to_sixteen_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [png(WORDS[..., :channels], 16) for channels in (1, 2, 3, 4)]
    files.append(png(WORDS[..., :3], 16, WORDS[4, 4, :3].tolist()))
    expected = [pixels(data) for data in files]
    monkeypatch.setattr(rgb, "STRIP", 70)
    for data, found in zip(files, expected, strict=True):
        assert (pixels(data) == found).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_a_png(bits: int) -> None:
    top = 2**bits - 1
    values = np.arange(16).reshape(2, 8) % (top + 1)
    key = min(1, top)
    found = pixels(png(values if bits < 8 else values[..., None], bits, [key]))[..., 0]
    assert (found == np.where(values == key, 255, np.rint(values * 255 / top))).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_of_a_png(bits: int) -> None:
    values = WORDS[..., :3] if bits == 16 else COLOURS
    values = values.copy()
    values[0, 1] = values[0, 0] ^ 1  # differs in the lowest bits only
    expected = np.rint(values / 257) if bits == 16 else values.astype(int)
    expected[0, 0] = 255
    assert (pixels(png(values, bits, values[0, 0].tolist())) == expected).all()


def test_grey_maps_of_any_maximum() -> None:
    for top in (15, 255, 1000, 4095, 65535):
        values = np.array([0, top // 3, top])
        data = b"P5 3 1 %d\n" % top + values.astype(">u2" if top > 255 else np.uint8).tobytes()
        assert np.abs(pixels(data)[0, :, 0] - values * 255 / top).max() <= 0.51
        if top > 255:
            assert np.abs(pixels(data, ValueRange(0, top / 3))[0, :, 0] - [0, 255, 255]).max() <= 1
            assert np.abs(np.array(extremes(open_image(data))) - (0, top)).max() < 0.1


def test_bytes_with_a_range() -> None:
    dark = COLOURS // 26
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert (pixels(encoded(dark, kind), ValueRange(0, 9)) == np.rint(dark * (255 / 9))).all()
    clear = np.dstack((dark, np.full((9, 8), 128, np.uint8)))
    expected = over_white(dark * (255 / 9), clear[..., 3])
    assert np.abs(pixels(encoded(clear, "PNG"), ValueRange(0, 9)) - expected).max() <= 1
    with pytest.raises(ValueError, match="has 8 bits in each channel, and the range of values 0,4095 is for pictures"):
        pixels(encoded(dark, "PNG"), ValueRange(0, 4095))


def test_lab() -> None:
    lab = Image.frombytes("LAB", (8, 9), COLOURS.tobytes())
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    expected = np.asarray(ImageCms.applyTransform(lab, ImageCms.buildTransform(*profiles, "LAB", "RGB"))).astype(int)
    assert np.abs(pixels(encoded(lab, "TIFF")) - expected).max() <= 1
    # CIE 1976: L* of 50 is a luminance of 0.1842, which sRGB writes as 119; a* and b* of 0 are grey.
    grey = Image.new("LAB", (2, 2), (128, 128, 128))
    assert np.abs(pixels(encoded(grey, "TIFF")) - 119).max() <= 2
    signed = np.array([[[128, 0, 0], [128, 206, 0], [128, 50, 0]]], dtype=np.uint8)  # a* of 0, -50 and 50 in the file
    [middle, green, red] = pixels(tiff(signed, 8))[0].tolist()
    assert max(middle) - min(middle) <= 2 and green[1] > green[0] + 50 and red[0] > red[1] + 50


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX", "LAB"])
def test_modes_without_transparency(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert("RGB")
    if mode == "P":
        image = image.quantize(64)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (8, 9), COLOURS.tobytes())
    else:
        image = image.convert(mode)
    assert (np.asarray(to_rgb(image)) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa", "P"])
def test_modes_with_transparency(mode: str) -> None:
    grey = mode in ("LA", "La")
    colours = np.repeat(COLOURS[..., :1], 3, 2) if grey else COLOURS
    clear = np.random.default_rng(3).integers(100, 256, (9, 8)).astype(np.uint8)
    image = Image.fromarray(np.dstack((colours, clear)))
    expected, bound = over_white(colours, clear), 3 if mode in ("La", "RGBa") else 1
    if grey:
        image = image.convert("LA").convert(mode)
    elif mode == "PA":
        coded = Image.fromarray(colours).quantize(72).convert("PA")
        coded.putalpha(Image.fromarray(clear))
        image = coded
        expected = over_white(np.asarray(coded.convert("RGB")), clear)
    elif mode == "P":
        image = Image.fromarray(colours).quantize(72)
        image.info["transparency"] = bytes(range(184, 256))
        index = np.asarray(image)
        expected = over_white(np.asarray(image.convert("RGB")), 184 + index.astype(int))
    else:
        image = image.convert(mode)
    assert image.mode == mode
    found = np.asarray(to_rgb(image)).astype(int)
    assert np.abs(found - expected).max() <= bound


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_in_memory(mode: str) -> None:
    order = ">u2" if mode.endswith("B") else "<u2"
    image = Image.frombytes(mode, (8, 9), WORDS[..., 0].astype(order).tobytes())
    assert (np.asarray(to_rgb(image)) == TO_BYTES[..., :1]).all()


def test_palettes_of_eight_bits_in_a_tiff() -> None:
    palette = np.random.default_rng(4).integers(0, 256, (256, 3))
    for factor in (1, 257):
        data = tiff(BYTES, 3, tags={320: (3, (palette.T * factor).ravel().tolist())})
        assert (pixels(data) == palette[BYTES]).all()


def test_extremes_of_a_palette_of_eight_bits_in_a_tiff() -> None:
    colours = np.linspace(40, 200, 3 * 256).astype(int)
    data = tiff(BYTES, 3, tags={320: (3, colours.tolist())})
    assert extremes(open_image(data)) == (pixels(data).min(), pixels(data).max()) == (40, 200)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_transparent_pixels_have_no_extremes(bits: int, channels: int) -> None:
    """What lies below an opacity of 0 is not seen: to_rgb lays it over white."""
    unit = 257 if bits == 16 else 1
    values = np.full((4, 5, channels), 100 * unit)
    values[..., -1] = 255 * unit
    values[0, 0], values[1, 1, 0] = 7, 50 * unit
    values[0, 0, -1], values[1, 1, -1] = 0, unit  # the latter is hardly seen
    assert extremes(open_image(png(values.astype(f"u{bits // 8}"), bits))) == (50 * unit, 100 * unit)
    values[..., -1] = 0
    with pytest.raises(ValueError, match="no pixel that is visible"):
        extremes(open_image(png(values.astype(f"u{bits // 8}"), bits)))


@pytest.mark.parametrize(("bits", "channels"), [(4, 1), (8, 1), (8, 3), (16, 1), (16, 3)])
def test_a_transparent_value_has_no_extremes(bits: int, channels: int) -> None:
    values = np.full((4, 6, channels) if channels > 1 else (4, 6), 9, dtype=np.uint16 if bits == 16 else np.uint8)
    values[0, 0], values[1] = 3, 12
    unit = 17 if bits == 4 else 1  # Pillow enlarges grey of few bits
    assert extremes(open_image(png(values, bits))) == (3 * unit, 12 * unit)
    assert extremes(open_image(png(values, bits, [3] * channels))) == (9 * unit, 12 * unit)


def test_extremes_of_grey_multiplied_by_its_transparency() -> None:
    image = Image.fromarray(np.dstack([BYTES // 2 + 20, np.full_like(BYTES, 255)])).convert("La")
    assert image.mode == "La"
    assert extremes(image) == (20, 147)


def test_orientation_of_a_tiff() -> None:
    for value in range(1, 9):
        data = tiff(COLOURS, 2, tags={274: (3, [value])})
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert pixels(data).tolist() == expected.tolist()
        stored = Image.fromarray(COLOURS)
        turned = stored.transpose(rgb.UPRIGHT[value]) if value > 1 else stored
        assert pixels(data).tolist() == np.asarray(turned).tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(BYTES, None), "does not say whether 0 is black or white"),
        (tiff(BYTES.astype(np.int8), sample_format=2), "signed 8-bit pixels"),
        (tiff(np.dstack([BYTES] * 4), 5, tags={332: (3, [2])}), "separated inks"),
        (tiff(np.dstack([BYTES] * 3), 6, tags={530: (3, [2, 2])}), "colours of a lower resolution"),
        (tiff(np.dstack([BYTES] * 2), 1), "a TIFF of a kind that cannot be identified here"),
        (tiff(WORDS[..., 0], 34892), "a TIFF of a kind that cannot be identified here"),
        (tiff(WORDS[..., 0].astype(np.float16), sample_format=3), "a TIFF of a kind that cannot be identified here"),
        (tiff(WORDS[..., 0].astype(np.float32), sample_format=3), "floating-point pixels from .* is not known"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pixels(data)


def test_what_was_decoded_with_its_bytes_swapped_is_refused() -> None:
    image = Image.open(io.BytesIO(tiff(WORDS[..., 0].astype(np.float32), sample_format=3, order=">", compressed=True)))
    image.load()
    with pytest.raises(ValueError, match="were decoded before; give the file instead"):
        to_rgb(image, ValueRange(0, 65535))


@pytest.mark.parametrize("values", [(1, 1), (2, 1), (0,), "0,1", (0, float("nan")), (0, float("inf")), (True, 2)])
def test_no_range(values: object) -> None:
    with pytest.raises(ValueError, match="is no range of values; give two numbers"):
        value_range(values)
    assert value_range([0, 4095]) == ValueRange(0, 4095)
