"""A JPEG that is reduced plane by plane: the pixels of the usual way, of every kind of JPEG, and refusals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.decoding.rgb import UPRIGHT
from tests.support.images import encoded, smooth

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from tools.conversion import jpeg_decode, jpeg_reduce
from tools.conversion.encode import REENCODED, STORED_RAW, Settings, encode_bytes
from tools.conversion.jpeg_reduce import halvings, reduce_jpeg
from tools.conversion.reduce import FILTER, bounded
from tools.conversion.synthetic_images import write_jpegs


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def picture(height: int, width: int) -> Image.Image:
    """Detail at every scale that a reduction has to average: smooth colours with stripes and noise."""
    rng = np.random.default_rng(0)
    pixels = smooth(height, width).astype(int) // 2 + 60
    pixels += (30 * np.sin(np.arange(width) / 3)).astype(int)[None, :, None] + rng.integers(-9, 10, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [90, 95])
@pytest.mark.parametrize(("height", "width"), [(320, 427), (321, 255), (90, 1001)])
def test_the_pixels_are_those_of_the_usual_way(height: int, width: int, quality: int, subsampling: str) -> None:
    data = encoded(picture(height, width), quality=95, subsampling=subsampling)
    made = encode_bytes(data, Settings(max_size=128, quality=quality))
    usual = bounded(Image.open(io.BytesIO(data)), 128)
    assert (made.width, made.height, made.kind) == (*usual.size, REENCODED)
    expected = decoded(encoded(usual, quality=quality, subsampling=0 if quality >= 95 else 2))
    difference = np.abs(decoded(made.data) - expected)
    assert difference.mean() < 2.0  # seen: up to 1.4, where colours of 4:2:0 are not enlarged on the way
    assert abs((decoded(made.data) - expected).mean()) < 0.3
    stored = Image.open(io.BytesIO(made.data))
    assert stored.layer[0][1:3] == ((1, 1) if quality >= 95 else (2, 2))


@pytest.mark.parametrize("max_size", [16, 33, 51, 100, 101])
def test_odd_sides(max_size: int) -> None:
    """The library reads planes with even sides: what it reads is the picture, and the same every time."""
    for height, width in ((121, 170), (171, 120), (123, 123), (160, 119)):
        data = encoded(picture(height, width), quality=95)
        settings = Settings(max_size=max_size, quality=90)
        made = encode_bytes(data, settings)
        assert all(encode_bytes(data, settings).data == made.data for _ in range(5))
        usual = bounded(Image.open(io.BytesIO(data)), max_size)
        expected = decoded(encoded(usual, quality=90, subsampling=2))
        assert np.abs(decoded(made.data) - expected).mean() < 2.5
        assert np.abs(np.asarray(usual).reshape(-1, 3).mean(0) - made.sums / (made.width * made.height)).max() < 1.5


@pytest.mark.parametrize("quality", [90, 98])
def test_statistics_are_those_of_what_a_decoder_shows(tmp_path: Path, quality: int) -> None:
    """Of colours at half of the resolution, too, which decoders smooth: colourful pictures have less deviation then."""
    write_jpegs(tmp_path, 2, 400)
    for path in tmp_path.iterdir():
        made = encode_bytes(path.read_bytes(), Settings(max_size=128, quality=quality))
        shown = decoded(made.data).reshape(-1, 3)
        assert (made.sums == shown.sum(0)).all()
        assert (made.squares == (shown**2).sum(0)).all()
        assert made.extremes == (shown.min(), shown.max())


@pytest.mark.parametrize("turn", range(1, 9))
def test_it_is_turned(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    image = picture(200, 301)
    made = encode_bytes(encoded(image, quality=95, exif=exif), Settings(max_size=100, quality=95))
    straight = encode_bytes(encoded(image, quality=95), Settings(max_size=100, quality=95))
    expected = Image.fromarray(decoded(straight.data).astype(np.uint8))
    expected = expected.transpose(UPRIGHT[turn]) if turn > 1 else expected
    assert (made.width, made.height) == expected.size
    assert np.abs(decoded(made.data) - np.asarray(expected).astype(int)).mean() < 1.5


def test_a_grey_one() -> None:
    data = encoded(picture(200, 300).convert("L"), quality=95)
    made = decoded(encode_bytes(data, Settings(max_size=100, quality=90)).data)
    assert (made == made[..., :1]).all()
    expected = np.asarray(Image.open(io.BytesIO(data)).resize((100, 67), FILTER)).astype(int)
    assert np.abs(made[..., 0] - expected).mean() < 2.5


def test_large_photos_are_halved_while_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [halvings(side, 100) for side in (150, 299, 300, 599, 600, 1200, 9999)] == [0, 0, 1, 1, 2, 3, 3]
    for height, width in ((400, 600), (403, 605)):  # the latter has no whole half
        data = encoded(picture(height, width), quality=95)
        fast = reduce_jpeg(data, (100, 67), 1, 95, full_colour=True)
        with monkeypatch.context() as patched:
            patched.setattr(jpeg_reduce, "halvings", lambda side, target: 0)
            slow = reduce_jpeg(data, (100, 67), 1, 95, full_colour=True)
        assert fast is not None and slow is not None
        assert np.abs(decoded(fast.data) - decoded(slow.data)).mean() < 2


def test_small_results_stay_without_loss() -> None:
    made = encode_bytes(encoded(picture(200, 200), quality=95), Settings(max_size=50))
    assert made.kind == STORED_RAW


def test_damaged_and_foreign_ones_are_left_to_pillow() -> None:
    data = encoded(picture(200, 300), quality=90)
    at = data.rindex(b"\xff\xd9")
    dirty = data[:at] + b"\x00" * 7 + data[at:]  # extraneous bytes before the end: a warning
    rgb = encoded(picture(200, 300), quality=90, keep_rgb=True)
    assert reduce_jpeg(rgb, (100, 67), 1, 90, full_colour=False) is None
    for other in (dirty, rgb):
        made = encode_bytes(other, Settings(max_size=100, quality=90))
        assert (made.width, made.height) == (100, 67)
        usual = decoded(encoded(bounded(Image.open(io.BytesIO(other)), 100), quality=90, subsampling=2))
        assert np.abs(decoded(made.data) - usual).mean() < 2
    broken = bytearray(data)
    broken[at - 900 : at - 500] = bytes(400)  # in the middle of the pixels: a warning
    assert reduce_jpeg(bytes(broken), (100, 67), 1, 90, full_colour=False) is None
    assert reduce_jpeg(b"\xff\xd8 no JPEG", (100, 67), 1, 90, full_colour=False) is None
    with pytest.raises(OSError, match="truncated"):
        encode_bytes(data[: len(data) // 2], Settings(max_size=100))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_decoding_equals_pillows(options: dict[str, Any]) -> None:
    data = encoded(picture(123, 211), quality=80, **options)
    found = jpeg_decode.decode(data, 123, 211)
    assert found is not None and (found == decoded(data)).all()
