"""Files that libraries refuse or warn of: read where that is right, and named with the way out where it is not."""

from __future__ import annotations

import io
import os
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from pipelines.formats.opening import open_dataset
from tests.support.conversion import one_line, refused
from tests.support.images import class_folder, encoded, smooth, stored, write
from tools.conversion.file_kinds import foreign_kind
from tools.conversion.library_warnings import c_lines_as_warnings
from tools.conversion.summary import progress_bar
from tools.convert import main

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.parametrize("after", [False, True])
def test_a_png_with_long_texts_is_read(tmp_path: Path, after: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "a" * 3_000_000, zip=True)
    info.add_itxt("more", "b" * 3_000_000, zip=True)
    picture = smooth(20, 20)
    data = encoded(picture, "PNG", pnginfo=info)
    if after:  # behind the pixels, as some programs write them
        plain = encoded(picture, "PNG")
        data = plain[:-12] + data[33 : data.index(b"IDAT") - 4] + plain[-12:]
    for name in ("a", "b"):
        write(tmp_path / "photos" / name / "0.png", data)
    assert main([str(tmp_path / "photos"), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    assert (stored(tmp_path / "p.beton")[0] == picture).all()


@pytest.mark.parametrize("name", ["1.heic", "1.HEIF", "1.jpg"])
def test_heic_is_named_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = class_folder(tmp_path / "photos")
    write(folder / "cat" / name, HEIC)
    text = refused(capsys, folder, tmp_path / "p.beton")
    assert f"cat/{name}: is a HEIC picture, which is not decoded here; save it as JPEG" in text


def test_a_folder_of_heic_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "phone" / "cat" / "1.heic", HEIC)
    text = one_line(refused(capsys, tmp_path / "phone", tmp_path / "p.beton"))
    assert "cat/1.heic is a HEIC picture" in text and "heif-convert" in text


def test_a_source_made_of_links_names_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folder(tmp_path / "full")
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "full" / name)
    text = one_line(refused(capsys, tmp_path / "links", tmp_path / "p.beton"))
    assert "is a link out of the source; take such links with --follow-links" in text
    assert main([str(tmp_path / "links"), str(tmp_path / "p.beton"), "--workers", "1", "--follow-links"]) == 0
    assert open_dataset(tmp_path / "p.beton").labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_class_that_only_one_split_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "photos", tmp_path / "p.beton"
    class_folder(folder / "train", ("cat", "dog"))
    class_folder(folder / "val", ("dog", "newt"))
    text = one_line(refused(capsys, folder, out))
    assert "'newt' is in the split val but not in train" in text
    assert "--classes union" in text and "--folder" in text
    assert main([str(folder), str(out), "--workers", "1", "--classes", "union"]) == 0
    for path, labels in ((out, [0, 0, 0, 1, 1, 1]), (tmp_path / "p-val.beton", [1, 1, 1, 2, 2, 2])):
        dataset = open_dataset(path)
        assert dataset.classes == ("cat", "dog", "newt") and dataset.labels.tolist() == labels


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_warning_names_its_file(tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: str) -> None:
    """One warning of Pillow, and lines that libtiff writes past Python."""
    folder = class_folder(tmp_path / "photos")
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\1\x12\0\3"
    write(folder / "cat" / "exif.jpg", encoded(smooth(20, 20), exif=broken))
    buffer = io.BytesIO()
    Image.fromarray(smooth(64, 64)).save(buffer, "TIFF", compression="jpeg")
    tiff = bytearray(buffer.getvalue())
    tiff[200:230] = b"\xff\0\x13" * 10
    write(folder / "dog" / "scan.tif", bytes(tiff))
    lzw = io.BytesIO()
    Image.fromarray(smooth(64, 64)).save(lzw, "TIFF", compression="tiff_lzw")
    write(folder / "dog" / "cut.tif", lzw.getvalue()[:100] + b"\xff" * 60 + lzw.getvalue()[160:])
    main([str(folder), str(tmp_path / "p.beton"), "--workers", workers, "--skip-bad"])
    said = capfd.readouterr().err
    assert "UserWarning" not in said and "tempfile.tif" not in said
    assert "  cat/exif.jpg: Corrupt EXIF data" in said
    for line in said.splitlines():
        assert line.startswith(("  cat/", "  dog/", "warnings of image libraries", "left out ")), line


def test_an_avif_is_no_heic() -> None:
    """Both may name the brand of all pictures, mif1, first; the compatible brands tell them apart."""

    def box(*brands: bytes) -> bytes:
        content = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
        return (4 + len(content)).to_bytes(4, "big") + content + b"\0\0\0\x08free" + bytes(64)

    assert foreign_kind(box(b"mif1", b"mif1", b"avif", b"miaf")) is None
    assert foreign_kind(box(b"msf1", b"avis")) is None
    assert foreign_kind(box(b"avif", b"mif1")) is None
    assert foreign_kind(box(b"mif1", b"mif1", b"heic")) == "HEIC"
    assert foreign_kind(box(b"mif1")) == "HEIC"
    assert foreign_kind(box(b"isom", b"mp41") + b"avif") is None
    assert foreign_kind(b"\xff\xff\xff\xffftypmif1\0\0\0\0av") == "HEIC"


def test_the_progress_bar_is_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    """Drawn while the lines of C code about a TIFF are caught, it reaches the terminal and is none of them."""
    ours, theirs = os.openpty()
    kept = os.dup(2)
    try:
        os.dup2(theirs, 2)
        with warnings.catch_warnings(record=True) as caught, progress_bar(7) as advance:
            warnings.simplefilter("always")
            with c_lines_as_warnings(b"II*\0"):
                advance(3)
                time.sleep(0.3)  # the bar is drawn ten times a second
                os.write(2, b"a line of C code\n")
        os.set_blocking(ours, False)
        assert b"3/7" in os.read(ours, 65536)
    finally:
        os.dup2(kept, 2)
        for file in (kept, ours, theirs):
            os.close(file)
    assert [str(warning.message) for warning in caught] == ["a line of C code"]
