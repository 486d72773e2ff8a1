"""Hostile archives and links: one line, nothing outside the target, no memory without bound, and an end."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.conversion import one_line, refused
from tests.support.images import class_folder, encoded, smooth, write
from tools.conversion import archives
from tools.conversion.open_source import open_tree
from tools.conversion.tree import SourceError, SourceTree
from tools.convert import main

PICTURE = encoded(smooth(10, 10))


def member(name: str, data: bytes = PICTURE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in fields.items():
        setattr(made, key, value)
    return made, data


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for made, data in members:
            archive.addfile(made, io.BytesIO(data) if data else None)
    return path


def bad(tree: SourceTree) -> dict[str, str]:
    return dict(tree.bad)


def test_names_links_and_devices_in_a_tar(tmp_path: Path) -> None:
    tree = open_tree(
        tar(
            tmp_path / "x.tar",
            member("/etc/cat/0.jpg"),
            member("../../cat/1.jpg"),
            member("cat/../../2.jpg"),
            member("cat/3.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            member("cat/4.jpg", b"", type=tarfile.LNKTYPE, linkname="../../secret.jpg"),
            member("cat/5.jpg", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
            member("cat/6.jpg", b"", type=tarfile.FIFOTYPE),
            member("cat/7.jpg", b"old"),
            member("cat/7.jpg"),
            member("cat/" + "n" * 3000 + ".jpg"),
            member("cat/a\nb\udce9.jpg"),
        ),
        tmp_path,
    )
    found = bad(tree)
    assert found["../../cat/1.jpg"] == found["cat/../../2.jpg"] == "has a name that leads out of the archive"
    for name in ("cat/3.jpg", "cat/5.jpg", "cat/6.jpg"):
        assert found[name] == "is a link or special file in the tar"
    assert "which the tar does not hold" in found["cat/4.jpg"]
    assert set(tree.files) == {"etc/cat/0.jpg", "cat/7.jpg", "cat/" + "n" * 3000 + ".jpg", "cat/a\nb\udce9.jpg"}
    assert tree.files["cat/7.jpg"].size == len(PICTURE)  # the later one, as after unpacking


def test_converted_with_a_line_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tar(tmp_path / "x.tar", member("a/0.jpg"), member("b/1.jpg"), member("../../../b/2.jpg"))
    assert "../../../b/2.jpg: has a name that leads out" in refused(capsys, source, tmp_path / "p.beton")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    out = tmp_path / "in" / "deep" / "p.beton"
    assert main([str(source), str(out), "--workers", "1", "--skip-bad"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar", "in"}


def edited(path: Path, at: int, data: bytes, checksum: bool = True) -> Path:
    """A tar with some bytes of its first header changed, and a checksum that fits."""
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    if checksum:
        whole[148:156] = b" " * 8
        whole[148:156] = b"%06o\0 " % sum(whole[:512])
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    "size",
    [
        b"77777777777\0",  # 8 GiB
        b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,  # 9 EiB
        b"\xff" * 10 + b"\xfe\x00",  # negative: Python's own list of members would never end
        b"\xff" * 12,
    ],
)
def test_claimed_sizes_in_a_tar(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: bytes) -> None:
    path = edited(tar(tmp_path / "x.tar", member("a/0.jpg"), member("a/1.jpg")), 124, size)
    text = one_line(refused(capsys, path, tmp_path / "p.beton"))
    assert "is damaged" in text or "neither a folder nor" in text


def test_records_that_would_fill_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = b"a/" + b"n" * (40 << 20) + b".jpg"
    path = tar(tmp_path / "x.tar", member("././@LongLink", name, type=tarfile.GNUTYPE_LONGNAME), member("a/0.jpg"))
    tracemalloc.start()
    try:
        text = one_line(refused(capsys, path, tmp_path / "p.beton"))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert "is damaged" in text or "neither a folder nor" in text


def test_chains_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [member("pax", b"11 path=abc\n", type=tarfile.XHDTYPE) for _ in range(3000)]
    path = tar(tmp_path / "x.tar", member("a/0.jpg"), *records, member("a/1.jpg"), kind=tarfile.USTAR_FORMAT)
    assert "is damaged" in one_line(refused(capsys, path, tmp_path / "p.beton"))


@pytest.mark.parametrize("left", [512, 700, 1024, 1536, 2048 + 512, -9217])
def test_truncated_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str], left: int) -> None:
    path = tar(tmp_path / "x.tar", *(member(f"a/{i}.jpg") for i in range(3)))
    assert len(PICTURE) <= 1024
    path.write_bytes(path.read_bytes()[:left])
    text = one_line(refused(capsys, path, tmp_path / "p.beton"))
    assert "is damaged (it is cut short" in text or "neither a folder nor" in text


def test_a_tar_that_is_damaged_in_the_middle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tarfile alone takes a header that it cannot read for the end, and the rest would silently be missing."""
    path = tar(tmp_path / "x.tar", *(member(f"a/{i}.jpg") for i in range(3)))
    second = 512 + -(-len(PICTURE) // 512) * 512
    edited(path, second + 3, b"\xff", checksum=False)
    assert f"no header at byte {second:,}" in one_line(refused(capsys, path, tmp_path / "p.beton"))


def test_bombs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 20)
    path = write(tmp_path / "x.tar.gz", gzip.compress(bytes(64 << 20)))
    assert "unpacks to over 200 times its size" in one_line(refused(capsys, path, tmp_path / "p.beton"))


def test_a_zip_that_is_a_bomb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 20)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.jpg", PICTURE)
        archive.writestr("a/1.jpg", bytes(3 << 20))
    assert "unpacks to over 200 times its size" in one_line(refused(capsys, path, tmp_path / "p.beton"))
    monkeypatch.setattr(archives, "BOMB_RATIO", 2000)  # then it is only a file that is no image
    assert "a/1.jpg: is not an image that can be read" in refused(capsys, path, tmp_path / "p.beton")


def test_a_zip_s_headers_inside_another_s_extra_field(tmp_path: Path) -> None:
    """The way of nested headers: each member's extra field holds the header of the next, and all share the data."""
    names, body = [b"a/0.jpg", b"a/1.jpg", b"a/2.jpg"], b""
    for name in reversed(names):
        body = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(PICTURE), len(PICTURE), len(PICTURE),
                           len(name), len(body)) + name + body  # fmt: skip
    whole, directory = body + PICTURE, b""
    for number, name in enumerate(names):
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, zlib.crc32(PICTURE), len(PICTURE),
                                 len(PICTURE), len(name), 0, 0, 0, 0, 0, number * (30 + len(name))) + name  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), len(directory), len(whole), 0)
    tree = open_tree(write(tmp_path / "x.zip", whole + directory + end), tmp_path)
    assert list(tree.files) == ["a/0.jpg"]
    assert set(bad(tree).values()) == {"shares its bytes with another member of the zip"}


def test_zip_members(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("/a/0.jpg", PICTURE)
        archive.writestr("../a/1.jpg", PICTURE)
        link = zipfile.ZipInfo("a/2.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/3.jpg", PICTURE)
    tree = open_tree(path, tmp_path)
    assert set(tree.files) == {"a/0.jpg", "a/3.jpg"}
    assert bad(tree) == {
        "../a/1.jpg": "has a name that leads out of the archive",
        "a/2.jpg": "is a link or special file in the zip",
    }


def test_claimed_sizes_and_shared_bytes_in_a_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.jpg", PICTURE)
        archive.writestr("a/1.jpg", bytes(1 << 20))
        archive.infolist()[1].file_size = 100  # unpacks to more than it says
        again = zipfile.ZipInfo("a/2.jpg")
        for field in ("compress_type", "compress_size", "file_size", "header_offset", "CRC"):
            setattr(again, field, getattr(archive.infolist()[0], field))
        archive.filelist.append(again)
    text = refused(capsys, path, tmp_path / "p.beton")
    assert "a/2.jpg: shares its bytes with another member" in text
    assert "a/1.jpg: unpacks to 101 bytes or more, the archive says 100" in text


def test_a_zip_whose_directory_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/0.jpg", PICTURE)
        archive.writestr("a/1.jpg", PICTURE)
    path.write_bytes(path.read_bytes().replace(b"x/0.jpg", b"\0/0.jpg"))  # which is read as a name of no letters
    assert set(open_tree(path, tmp_path).files) == {"a/1.jpg"}
    data = path.read_bytes()
    at = data.index(b"PK\1\2")
    for place in range(at, len(data)):  # each byte of the directory in turn
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        try:
            open_tree(path, tmp_path)
        except SourceError as error:
            message = str(error)
            assert "\n" not in message and str(path) in message


def test_links_out_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folder(tmp_path / "photos")
    outside = class_folder(tmp_path / "secret")
    (folder / "cat" / "out.jpg").symlink_to(outside / "cat" / "0.jpg")
    (folder / "bird").symlink_to(outside / "dog")
    (folder / "cat" / "in.jpg").symlink_to(folder / "dog" / "0.jpg")
    (folder / "cat" / "self.jpg").symlink_to("self.jpg")
    text = refused(capsys, folder, tmp_path / "p.beton")
    for name in ("cat/out.jpg", "bird"):
        assert f"{name}: is a link out of the source; take such links with --follow-links" in text
    assert "cat/self.jpg: is a link that leads nowhere" in text or "cat/self.jpg: cannot be read" in text
    (folder / "cat" / "self.jpg").unlink()
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "1", "--follow-links"]) == 0
    assert "11 images, 3 classes" in capsys.readouterr().out


def test_a_few_links_make_no_endless_tree(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(9)]
    for name in names:
        write(tmp_path / "s" / name / "0.jpg", PICTURE)
        for other in names:
            (tmp_path / "s" / name / f"to-{other}").symlink_to(tmp_path / "s" / other)
    tree = open_tree(tmp_path / "s", tmp_path)
    assert len(tree.files) == 9 + 9 * 8
    assert "is a link inside a folder that a link led to" in set(bad(tree).values())


def test_deep_folders(tmp_path: Path) -> None:
    """As deep as a path can be: deeper than Python's recursion."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1900):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        write(tmp_path / "d" / "0.jpg", PICTURE)
        assert "d/0.jpg" in open_tree(tmp_path, tmp_path).files
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # Python's own way does not get to the bottom


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2"])
def test_cut_anywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(3):
                archive.writestr(f"a/{number}.jpg", PICTURE)
    else:
        with tarfile.open(path, f"w:{name[6:]}" if name != "x.tar" else "w") as packed:
            for number in range(3):
                made, data = member(f"a/{number}.jpg")
                packed.addfile(made, io.BytesIO(data))
    data = path.read_bytes()
    for left in range(0, len(data) - 1024 - 8000 * (name == "x.tar"), max(1, len(data) // 25)):
        path.write_bytes(data[:left])
        with pytest.raises(SourceError) as caught:
            open_tree(path, tmp_path)
        assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
