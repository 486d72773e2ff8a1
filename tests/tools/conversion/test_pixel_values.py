"""Deep pictures and idle channels from the command line to the card: ranges, notes and floors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.decoding.image_file import open_image
from pipelines.decoding.rgb import extremes
from pipelines.formats.card import read_card
from pipelines.formats.channels import FLOOR, uniform_channels
from pipelines.formats.opening import open_dataset
from tests.support.conversion import one_line, refused
from tests.support.datasets import converted
from tests.support.deep_files import tiff
from tests.support.images import encoded, smooth, stored, write
from tools.conversion.byte_locations import ByteRange, Item
from tools.conversion.encode import Settings
from tools.conversion.encoding_pool import encode_chunk
from tools.conversion.options import parse
from tools.conversion.pixel_values import range_of_all, value_notes
from tools.convert import main

RAMP = np.linspace(0, 255, 40)[None].repeat(30, 0)
TWELVE = (RAMP * 16).astype(np.uint16)


def twelve_bits(root: Path) -> Path:
    """Grey ramps of 12 bits in files of 16, one of them twice as dark."""
    write(root / "x" / "a.png", encoded(Image.fromarray(TWELVE), "PNG"))
    write(root / "x" / "b.tif", tiff(TWELVE // 2))
    return root


def test_a_hardly_used_range_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(twelve_bits(tmp_path / "deep"), tmp_path / "deep.beton")
    assert "deep.beton: the pixels are from 0 to 16 of 255" in capsys.readouterr().err
    converted(tmp_path / "deep", tmp_path / "scaled.beton", "--range", "0,4080")
    assert capsys.readouterr().err == ""
    assert read_card(tmp_path / "deep.beton")["settings"]["range"] is None


@pytest.mark.parametrize("given", ["0,4080", "auto"])
@pytest.mark.parametrize("form", ["beton", "shards"])
def test_a_range_scales_all_alike_and_is_kept(tmp_path: Path, given: str, form: str) -> None:
    out = tmp_path / ("deep.beton" if form == "beton" else "deep")
    dataset = converted(twelve_bits(tmp_path / "source"), out, "--range", given, "--format", form)
    assert dataset.value_range == (0, 4080)
    other = tmp_path / ("copy" if form == "beton" else "copy.beton")
    copy = converted(out, other, "--format", "shards" if form == "beton" else "beton")
    assert copy.value_range == (0, 4080)
    smaller = converted(out, tmp_path / "small.beton", "--max-size", "20")
    assert smaller.value_range == (0, 4080)
    bright, dark = stored(out if form == "beton" else other)
    assert np.abs(bright[..., 0] - RAMP).max() <= 0.54
    assert np.abs(dark[..., 0] - RAMP / 2).max() <= 0.54


def test_the_largest_value_of_all_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "deep" / "train" / "x" / "a.png", encoded(Image.fromarray(TWELVE // 2 + 3), "PNG"))
    write(tmp_path / "deep" / "test" / "x" / "a.png", encoded(Image.fromarray(TWELVE), "PNG"))
    train = converted(tmp_path / "deep", tmp_path / "deep.beton", "--range", "auto")
    assert "note: --range auto took the values 0 to 4080" in capsys.readouterr().err
    assert train.value_range == open_dataset(tmp_path / "deep-test.beton").value_range == (0, 4080)


@pytest.mark.parametrize(("most", "expected"), [(2000, (0, 4080)), (10_000, (0, 65535)), (9_999, (0, 4080))])
def test_the_range_is_of_the_images_that_are_converted(tmp_path: Path, most: int, expected: tuple[int, int]) -> None:
    """A picture beyond --max-pixels does not count, and one within it does."""
    source = twelve_bits(tmp_path / "deep")
    write(source / "x" / "large.png", encoded(Image.fromarray(np.full((100, 100), 65535, np.uint16)), "PNG"))
    out, words = tmp_path / "deep.beton", ("--range", "auto", "--max-pixels", str(most), "--skip-bad")
    dataset = converted(source, out, *words)
    assert dataset.value_range == expected
    assert dataset.number == (3 if most == 10_000 else 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_range_prints_no_warnings_of_libraries(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    """One of Pillow, and lines that libtiff writes past Python; the conversion names their files."""
    write(tmp_path / "twice.tif", tiff(TWELVE, tags={256: (4, [40, 40])}))
    data = encoded(Image.fromarray(smooth(64, 64)), "TIFF", compression="tiff_lzw")
    cut = data[:100] + b"\xff" * 60 + data[160:]
    write(tmp_path / "cut.tif", cut)
    with pytest.raises(OSError, match="decoder error"):
        extremes(open_image(cut))
    assert "tempfile.tif" in capfd.readouterr().err  # so there is something to catch
    items = [Item(name, 0, ByteRange(str(tmp_path / name))) for name in ("twice.tif", "cut.tif")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert range_of_all(items, 5000, workers) == (0, 4080)
    assert capfd.readouterr().err == ""
    [(name, line)] = encode_chunk((items, Settings())).warned
    assert name == "twice.tif" and "too many entries" in line


def test_the_tree_is_printed_before_the_range_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one" / "x" / "a.png", encoded(np.full((5, 5, 3), 7, np.uint8), "PNG"))
    assert main([str(tmp_path / "one"), str(tmp_path / "one.beton"), "--range", "auto", "--workers", "1"]) == 1
    printed = capsys.readouterr()
    assert "train -> one.beton: 1 images" in printed.out and "found the value 7" in printed.err


def test_images_that_a_range_does_not_suit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = twelve_bits(tmp_path / "deep")
    write(source / "x" / "c.png", encoded(np.zeros((5, 5, 3), np.uint8), "PNG"))
    message = refused(capsys, source, tmp_path / "deep.beton", "--range", "auto")
    assert "x/c.png: has 8 bits in each channel, and the range of values 0,4080 is for pictures with more" in message


def test_integers_of_unknown_scale_name_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "deep" / "x" / "a.tif", tiff(TWELVE.astype(np.uint32)))
    message = refused(capsys, tmp_path / "deep", tmp_path / "deep.beton")
    assert "from 0 to 4080, whose scale is not known; give the values that are black and white (--range" in message


@pytest.mark.parametrize("values", ["9,3", "3", "a,b", "1,2,3", "0,inf", ""])
def test_no_range(values: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["source", "out.beton", "--range", values]) == 2
    assert "is no range of values; give the smaller one first, such as 0,4095, or auto" in one_line(
        capsys.readouterr().err
    )


def test_where_a_range_cannot_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["s", str(tmp_path / "o"), "--format", "shards", "--shard", "1/2", "--range", "auto"]) == 2
    assert "--range auto needs all images" in one_line(capsys.readouterr().err)
    assert parse(["s", "o", "--range=-5,70000.5"]).range == (-5, 70000.5)
    converted(twelve_bits(tmp_path / "deep"), tmp_path / "deep.beton")
    capsys.readouterr()
    message = refused(capsys, tmp_path / "deep.beton", tmp_path / "again.beton", "--range", "0,9")
    assert "holds 8 bits; convert the files that it was made of" in one_line(message)
    write(tmp_path / "one" / "x" / "a.png", encoded(np.full((5, 5, 3), 7, np.uint8), "PNG"))
    message = refused(capsys, tmp_path / "one", tmp_path / "one.beton", "--range", "auto")
    assert "--range auto found the value 7 in all pixels" in one_line(message)


def test_a_range_that_is_damaged_in_the_card(tmp_path: Path) -> None:
    out = tmp_path / "deep.beton"
    converted(twelve_bits(tmp_path / "deep"), out)
    card = json.loads((tmp_path / "deep.beton.json").read_text())
    card["settings"]["range"], card["file"] = [4, 4], {k: v for k, v in card["file"].items() if k != "card"}
    (tmp_path / "deep.beton.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"\[4, 4\] is no range of values"):
        open_dataset(out)


def test_a_range_that_is_far_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(twelve_bits(tmp_path / "deep"), tmp_path / "deep.beton", "--range", "0,9")
    assert "nearly all pixels are black or white; the values 0 to 9 were taken" in capsys.readouterr().err


def test_a_few_outliers_do_not_hide_a_hardly_used_range() -> None:
    card = {"mean": [0.02] * 3, "std": [0.02] * 3}
    extremes_N2 = np.array([(0, 16)] * 999 + [(0, 255)], dtype=np.uint8)
    [note] = value_notes("deep.beton", card, extremes_N2, None)
    assert "from 0 to 16 of 255" in note
    extremes_N2[:300, 1] = 17
    assert value_notes("deep.beton", card, extremes_N2, None) == []
    assert value_notes("deep.beton", card, extremes_N2[:0], None) == []


@pytest.mark.parametrize("stray", [0, 1, 255])
def test_one_fluorescence_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str], stray: int) -> None:
    """A channel without content, and one with a single pixel of it: named, and divided by the floor."""
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[..., 1] = rng.integers(0, 200, (32, 32))
        if number == 7:
            pixels[3, 4, 0] = stray
        write(tmp_path / "gfp" / "x" / f"{number}.png", encoded(pixels, "PNG"))
    dataset = converted(tmp_path / "gfp", tmp_path / "gfp.beton")
    message = capsys.readouterr().err
    for name in ("red", "blue"):
        assert f"note: gfp.beton: the {name} channel hardly varies (mean 0.0" in message
    assert "green" not in message
    measured = read_card(tmp_path / "gfp.beton")["std"]
    share = 1 / (20 * 32 * 32)
    assert measured[0] == pytest.approx(stray / 255 * np.sqrt(share - share**2), abs=1e-8)
    assert dataset.std == (FLOOR, measured[1], FLOOR)


def test_images_that_do_not_vary_at_all() -> None:
    assert uniform_channels([0.5] * 3, [0.0] * 3) == [
        "the images hardly vary (mean 127.5, deviation 0 of 255); normalisation divides it by 4 levels"
    ]
    assert uniform_channels([0.5] * 3, [0.02] * 3) == []
