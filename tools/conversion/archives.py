"""Zips and tars as trees. Nothing is extracted.

A compressed tar cannot be read at random, so it is unpacked once, whole, into one temporary file in the target folder;
names in an archive are only labels and never become paths on the disk. Of two members with one name the later one
counts, as it would after unpacking.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pipelines.formats.regular_file import regular
from pipelines.printable import printable
from tools.conversion.byte_locations import BZIP2, DEFLATED, STORED, ByteRange
from tools.conversion.tree import SourceError, SourceTree

# An archive that unpacks to more than both is a bomb: images hardly shrink, and real archives stay below 20.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200
MAX_RECORD = 1 << 20  # bytes of a tar's records about a member, which are kept in memory; a name takes a few thousand

# First bytes of a compressed file, and what opens it.
PACKED = {b"\x1f\x8b": "gz", b"\xfd7zXZ": "xz", b"BZh": "bz2"}


def _unpacked(file: IO[bytes], packing: str) -> IO[bytes]:
    openers: dict[str, Any] = {"gz": gzip.open, "xz": lzma.open, "bz2": bz2.open}
    return cast(IO[bytes], openers[packing](file, "rb"))


def _open(path: Path) -> IO[bytes]:
    return open(path, "rb", opener=regular)


def _clean(name: str, tree: SourceTree) -> str | None:
    """A member's name without "./" and the like; None for what is to be ignored."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or tree.ignores("/".join(parts)):
        return None
    if ".." in parts:
        tree.bad.append((name, "has a name that leads out of the archive"))
        return None
    return "/".join(parts)


def is_zip(path: Path) -> bool:
    try:
        with _open(path) as file:
            return zipfile.is_zipfile(file)
    except (ValueError, struct.error, OverflowError):  # numbers that make it seek anywhere
        return False


def zip_tree(source: Path) -> SourceTree:
    tree = SourceTree(source.name)
    try:
        with _open(source) as file, zipfile.ZipFile(file) as archive:
            _list_zip(archive, file, source, tree)
    except (OSError, SourceError, zipfile.BadZipFile):
        raise
    except Exception as error:  # a hostile directory makes zipfile raise anything
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from None
    return tree


def _list_zip(archive: zipfile.ZipFile, file: IO[bytes], source: Path, tree: SourceTree) -> None:
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    if sum(member.file_size for member in members) > _most(source):
        raise _bomb(source)
    end = 0
    for member in members:
        start = _data_start(file, member)
        # Members that share bytes make a small zip unpack to any size.
        overlaps, end = member.header_offset < end, max(end, (start or member.header_offset) + member.compress_size)
        listed = _with_slashes(member)
        name = None if listed.endswith("/") else _clean(listed, tree)
        if name is None:
            continue
        if overlaps:
            tree.bad.append((name, "shares its bytes with another member of the zip"))
        elif stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            tree.bad.append((name, "is a link or special file in the zip"))
        elif member.flag_bits & 1:
            tree.bad.append((name, "is encrypted in the zip"))
        elif member.compress_type not in (STORED, DEFLATED, BZIP2):
            tree.bad.append((name, f"is packed by method {member.compress_type}; pack the zip again with deflate"))
        elif start is None:
            tree.bad.append((name, "has no header in the zip"))
        else:
            packing, crc = member.compress_type, member.CRC
            tree.files[name] = ByteRange(os.fspath(source), start, member.compress_size, packing, member.file_size, crc)


def _with_slashes(member: zipfile.ZipInfo) -> str:
    """Return a member's name with slashes; some programs of Windows wrote backslashes."""
    from_windows = member.create_system == 0 and "/" not in member.filename
    return member.filename.replace("\\", "/") if from_windows else member.filename


def _data_start(file: IO[bytes], member: zipfile.ZipInfo) -> int | None:
    """Where a member's bytes begin; None where there is no header."""
    if not 0 <= member.header_offset < os.fstat(file.fileno()).st_size:
        return None
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        return None
    # The header repeats the name and may have other extra fields than the central directory.
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    return int(member.header_offset + 30 + name_size + extra_size)


def _most(source: Path) -> int:
    """Bytes that an archive may unpack to."""
    return max(BOMB_BYTES, BOMB_RATIO * source.stat().st_size)


def _bomb(source: Path) -> SourceError:
    return SourceError(
        f"the archive {printable(str(source))} unpacks to over {BOMB_RATIO} times its size, as images never do; "
        "if you trust it, unpack it yourself"
    )


def compressed_tar_tree(source: Path, packing: str, scratch: Path) -> SourceTree:
    with tempfile.NamedTemporaryFile(dir=scratch, prefix=".unpacked-", suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
        try:
            with _open(source) as packed, _unpacked(packed, packing) as stream:
                _copy(stream, file, source)
            file.flush()
            return tar_tree(temporary, source.name, source)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _copy(stream: IO[bytes], file: IO[bytes], source: Path) -> None:
    done, most = 0, _most(source)
    while block := _next(stream, source):
        done += len(block)
        if done > most:
            raise _bomb(source)
        file.write(block)


def _next(stream: IO[bytes], source: Path) -> bytes:
    try:
        return stream.read(1 << 20)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # bz2 has none of its own
        raise SourceError(f"the archive {printable(str(source))} is damaged ({error}); get it again") from None


class _Member(tarfile.TarInfo):
    """A tar's member, refused before its records are read where they would fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        records = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
        if self.size < 0 or (self.type in records and self.size > MAX_RECORD):
            raise tarfile.ReadError(f"a record of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


_WILD = (ValueError, OverflowError, RecursionError)  # from numbers and chains of records in a tar


@contextmanager
def _opened(path: Path, start: int = 0) -> Iterator[tarfile.TarFile]:
    with _open(path) as file:
        file.seek(start)
        with tarfile.open(None, "r:", file, encoding="utf-8", errors="surrogateescape", tarinfo=_Member) as archive:
            yield archive


def is_tar(path: Path, start: int = 0) -> bool:
    """Whether a tar that is not compressed begins in a file at byte `start`."""
    try:
        with _opened(path, start):
            return True
    except (tarfile.TarError, *_WILD):
        return False


def tar_tree(path: Path, name: str, source: Path) -> SourceTree:
    tree = SourceTree(name)
    if not is_tar(path):
        raise SourceError(
            f"{printable(str(source))} is compressed but holds no tar; give the folder that it lies in, or unpack it"
        )
    try:
        with _opened(path) as archive:
            _list_tar(archive, path, tree, path.stat().st_size)
    except _WILD as error:
        raise tarfile.ReadError(str(error) or type(error).__name__) from None
    return tree


def inner_tar_tree(place: ByteRange, name: str) -> SourceTree:
    """List a tar that is a member of another one, or a file of a source.

    Raises:
        SourceError: it is damaged.
    """
    path, tree = Path(place.path), SourceTree(name)
    end = place.offset + place.size if place.size >= 0 else path.stat().st_size
    try:
        if place.size == 0 or not is_tar(path, place.offset):
            raise tarfile.ReadError("it begins as no tar does")
        with _opened(path, place.offset) as archive:
            _list_tar(archive, path, tree, end)
    except (OSError, tarfile.TarError, *_WILD) as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"the archive {printable(name)} in the source is damaged ({reason}); get it again") from None
    return tree


def _list_tar(archive: tarfile.TarFile, path: Path, tree: SourceTree, length: int) -> None:
    """List the members up to byte `length` of the file."""
    before = -1
    while True:
        member = archive.next()
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
        if member is None:
            break
        if archive.offset <= before:
            raise tarfile.ReadError("a member that ends before it begins")
        before = archive.offset
        if member.offset_data + (0 if member.issparse() else member.size) > length:
            raise tarfile.ReadError("it is cut short")
        member_name = None if member.isdir() else _clean(member.name, tree)
        if member_name is None:
            continue
        if member.issparse() or not (member.isreg() or member.islnk()):
            tree.bad.append((member_name, "is a link or special file in the tar"))
        elif member.islnk():
            target = tree.files.get(_clean(member.linkname, tree) or "")
            if target is None:
                tree.bad.append((member_name, f"links to {member.linkname}, which the tar does not hold"))
            else:
                tree.files[member_name] = target
        else:
            tree.files[member_name] = ByteRange(os.fspath(path), member.offset_data, member.size)
    # At a header that it cannot read, tarfile stops as at the end, which is a block of zeros.
    with _open(path) as file:
        file.seek(archive.offset)
        rest = file.read(tarfile.BLOCKSIZE)
    if rest != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(
            f"it is cut short at byte {archive.offset:,}"
            if len(rest) < 512
            else f"no header at byte {archive.offset:,}"
        )
