"""One image: which bytes are kept, and what other kinds of pixels become."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, smooth
from tools.conversion import encode, jpeg_check
from tools.conversion.encode import (
    JPEG,
    RAW,
    REENCODED,
    STORED_RAW,
    UNTOUCHED,
    Encoded,
    Settings,
    encode_array,
    encode_bytes,
)

PLAIN = Settings()


def pixels(made: Encoded) -> np.ndarray:
    if made.mode == RAW:
        return np.frombuffer(made.data, np.uint8).reshape(made.height, made.width, 3).astype(int)
    image = Image.open(io.BytesIO(made.data))
    assert image.size == (made.width, made.height)
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 2}, {"optimize": True}])
@pytest.mark.parametrize("grey", [False, True])
def test_plain_jpeg_is_untouched(options: dict[str, object], grey: bool) -> None:
    image = Image.fromarray(smooth(30, 40))
    data = encoded(image.convert("L") if grey else image, **options)
    for settings in (PLAIN, Settings(max_size=40), Settings(quality=50)):
        made = encode_bytes(data, settings)
        assert (made.mode, made.kind, made.height, made.width) == (JPEG, UNTOUCHED, 30, 40)
        assert made.data == data
    decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float).reshape(-1, 3)
    assert made.sums.tolist() == decoded.sum(0).tolist()
    assert made.squares.tolist() == (decoded**2).sum(0).tolist()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_small_lossless_is_raw(kind: str) -> None:
    image = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1) * 20, 3, axis=2)
    made = encode_bytes(encoded(image, kind), PLAIN)
    assert (made.mode, made.kind) == (RAW, STORED_RAW)
    assert (pixels(made) == image).all()


@pytest.mark.parametrize("side", [1, 64, 65, 200])
def test_statistics_are_exact(side: int) -> None:
    image = smooth(side, side, 4).astype(np.int64).reshape(-1, 3)
    made = encode_array(smooth(side, side, 4), PLAIN)
    assert made.sums.tolist() == image.sum(0).tolist()
    assert made.squares.tolist() == (image**2).sum(0).tolist()


def test_raw_limit() -> None:
    assert encode_array(smooth(64, 64), PLAIN).mode == RAW
    assert encode_array(smooth(64, 65), PLAIN).mode == JPEG
    assert encode_array(smooth(8, 8), Settings(quality=90)).mode == JPEG


def test_large_lossless_is_jpeg_95_with_full_colour() -> None:
    image = smooth(120, 90)
    made = encode_bytes(encoded(image, "PNG"), PLAIN)
    assert (made.mode, made.kind) == (JPEG, REENCODED)
    assert np.abs(pixels(made) - image).max() <= 8
    assert encoded(image, quality=95, subsampling=0) == made.data
    assert len(encode_bytes(encoded(image, "PNG"), Settings(quality=40)).data) < len(made.data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(16, 32, 3), quality=95, exif=exif)
    made = encode_bytes(data, PLAIN)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    assert (made.data == data) == (orientation == 1)
    assert (pixels(made) == expected).all()
    assert expected.shape[:2] == ((32, 16) if orientation >= 5 else (16, 32))


def test_modes_become_rgb() -> None:
    red = Image.new("RGB", (6, 5), (200, 16, 32))
    half = Image.new("RGBA", (6, 5), (200, 16, 32, 128))
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE)
    clear = Image.new("P", (6, 5), 0)
    clear.putpalette([200, 16, 32])
    cases = [
        (encoded(palette, "PNG"), (200, 16, 32)),
        (encoded(half, "PNG"), (227, 135, 143)),  # laid over white
        (encoded(Image.new("LA", (6, 5), (100, 0)), "PNG"), (255, 255, 255)),
        (encoded(clear, "PNG", transparency=0), (255, 255, 255)),
        (encoded(Image.new("L", (6, 5), 77), "PNG"), (77, 77, 77)),
        (encoded(Image.new("1", (6, 5), 1), "PNG"), (255, 255, 255)),
        (encoded(red.convert("CMYK"), "TIFF"), (200, 16, 32)),
    ]
    for data, expected in cases:
        got = pixels(encode_bytes(data, PLAIN))
        assert np.abs(got - expected).max() <= 1, (expected, got[0, 0])


def test_cmyk_jpeg_is_reencoded() -> None:
    image = Image.fromarray(smooth(80, 80)).convert("CMYK")
    made = encode_bytes(encoded(image, quality=98), PLAIN)
    assert made.kind == REENCODED
    assert np.abs(pixels(made) - smooth(80, 80)).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 40000, 65407, 65535]], dtype=np.uint16)
    got = pixels(encode_bytes(encoded(Image.fromarray(values), kind), PLAIN))
    assert got[0, :, 0].tolist() == np.rint(values[0] / 257).astype(int).tolist()
    assert (got == got[..., :1]).all()


def test_max_size() -> None:
    image = smooth(100, 300)
    for data in (encoded(image, quality=95), encoded(image, "PNG")):
        made = encode_bytes(data, Settings(max_size=150))
        assert (made.height, made.width, made.kind) == (50, 150, REENCODED)
        assert np.abs(pixels(made) - smooth(50, 150)).mean() < 4
    assert encode_bytes(encoded(smooth(1, 900)), Settings(max_size=10)).height == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"no image at all", "identify"),
        (encoded(smooth(64, 64), quality=95)[:-100], "truncated"),
        (encoded(smooth(64, 64), "PNG")[:-60], "truncated"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "identify"),
    ],
)
def test_bad(data: bytes, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        encode_bytes(data, PLAIN)


def test_decompression_bomb() -> None:
    data = encoded(Image.new("1", (20000, 6000)), "PNG")
    assert len(data) < 100_000
    with pytest.raises(ValueError, match="20000 x 6000 pixels; at most 100,000,000"):
        encode_bytes(data, PLAIN)


def test_side_limit() -> None:
    with pytest.raises(ValueError, match="a side may have 65535"):
        encode_bytes(encoded(Image.new("L", (70000, 1)), "PNG"), PLAIN)
    assert encode_bytes(encoded(Image.new("L", (70000, 1)), "PNG"), Settings(max_size=100)).width == 100


def test_a_jpeg_that_ffcv_warns_about_is_encoded_again() -> None:
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    data = encoded(smooth(80, 80), quality=90)
    assert jpeg_check.decodes_cleanly(data, 80, 80)
    at = data.rindex(b"\xff\xd9")
    dirty = data[:at] + b"\x00" * 7 + data[at:]  # extraneous bytes before the end: a warning, but Pillow reads on
    assert not jpeg_check.decodes_cleanly(dirty, 80, 80)
    made = encode_bytes(dirty, PLAIN)
    assert made.kind == REENCODED
    assert jpeg_check.decodes_cleanly(made.data, 80, 80)
    assert np.abs(pixels(made) - smooth(80, 80)).max() < 12


def test_without_ffcv_every_readable_jpeg_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("ffcv is not installed")

    monkeypatch.setattr(jpeg_check.ffcv_kernels, "load", missing)
    assert jpeg_check.decodes_cleanly(b"", 1, 1)


def test_a_limit_on_pixels_before_they_are_decoded() -> None:
    """A picture that says it has 9 billion pixels is refused by its header: nothing is allocated for it."""
    data = bytearray(encoded(smooth(8, 8), "PNG"))
    for at, side in ((16, 90_000), (20, 100_000)):
        data[at : at + 4] = side.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"has 90000 x 100000 pixels; at most 100,000,000 are decoded .--max-pixels"):
        encode_bytes(bytes(data), Settings())
    with pytest.raises(ValueError, match="has 20 x 30 pixels; at most 599 are decoded"):
        encode_bytes(encoded(smooth(30, 20)), Settings(max_pixels=599))
    assert encode_bytes(encoded(smooth(30, 20)), Settings(max_pixels=600)).height == 30


@pytest.mark.parametrize(("kind", "times"), [("PNG", 1), ("WEBP", 2), ("JPEG2000", 4)])
def test_fewer_pixels_where_decoders_hold_more(kind: str, times: int) -> None:
    data = encoded(smooth(30, 20), kind)
    assert encode_bytes(data, Settings(max_pixels=600 * times)).height == 30
    with pytest.raises(ValueError, match="has 20 x 30 pixels; at most 599 are decoded"):
        encode_bytes(data, Settings(max_pixels=600 * times - 1))


def peak_memory(data: bytes) -> int:
    """Bytes that encoding took at most beyond what this process has."""

    def status(key: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(text[text.index(key) :].split()[1]) << 10

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    before = status("VmRSS")
    encode_bytes(data, PLAIN)
    return status("VmHWM") - before


def deep_png(channels: int, side: int) -> bytes:
    """Sixteen bits a channel: 2 are grey and transparency, 4 colours and transparency."""
    rows = zlib.compress(bytes(1 + side * channels * 2) * side, 1)
    header = struct.pack(">IIBBBBB", side, side, 16, {1: 0, 2: 4, 4: 6}[channels], 0, 0, 0)
    parts = (b"IHDR" + header, b"IDAT" + rows, b"IEND")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_memory_on_the_way_to_rgb(channels: int) -> None:
    """Twelve bytes a pixel, also where the steps to 8 bits, to RGB and over white would hold twenty."""
    side = 2500
    assert peak_memory(deep_png(channels, side)) < 12 * side * side


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8))
    clear = Image.fromarray(rng.integers(0, 256, (50, 40), dtype=np.uint8))
    grey = Image.fromarray(rng.integers(0, 65536, (50, 40), dtype=np.uint16))
    laid = colours.copy()
    laid.putalpha(clear)
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE)
    files = [encoded(image, "PNG") for image in (laid, laid.convert("LA"), grey, palette, colours.convert("1"))]
    files += [encoded(palette, "PNG", transparency=3), encoded(colours, "PNG", transparency=colours.getpixel((0, 0)))]
    files += [encoded(colours.convert("CMYK"), "TIFF"), encoded(palette, "GIF", transparency=2)]
    whole = [encode_bytes(data, PLAIN).data for data in files]
    monkeypatch.setattr(encode, "STRIP", 130)  # three rows
    assert [encode_bytes(data, PLAIN).data for data in files] == whole


def test_a_limit_on_scans() -> None:
    data = encoded(smooth(16, 16), progressive=True)
    assert encode_bytes(data, Settings()).width == 16
    scan = data[data.index(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="has more than 500 scans"):
        encode_bytes(data[:-2] + scan * 501 + data[-2:], Settings())


def test_pixels_are_no_scans() -> None:
    """Three bytes of a bitmap that look like the marker of a scan, a thousand times."""
    pixels = np.frombuffer(b"\xff\xda\x00" * 1600, dtype=np.uint8).reshape(40, 40, 3)[:, :, ::-1]
    assert encode_bytes(encoded(pixels, "BMP"), Settings()).width == 40
