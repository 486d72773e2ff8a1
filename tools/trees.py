"""A source as a tree of files, whether it is a folder, a zip or a tar: relative name -> where the bytes lie.

Nothing is extracted. A compressed tar cannot be read at random, so it is unpacked once, whole, into one temporary file
in the target folder; names in an archive are only labels and never become paths on the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from tools.places import BZIP2, DEFLATED, STORED, Place

# First bytes of a compressed file, and what opens it.
PACKED = {b"\x1f\x8b": "gz", b"\xfd7zXZ": "xz", b"BZh": "bz2"}


def _unpacked(path: Path, packing: str) -> IO[bytes]:
    openers: dict[str, Any] = {"gz": gzip.open, "xz": lzma.open, "bz2": bz2.open}
    return cast(IO[bytes], openers[packing](path, "rb"))


class SourceError(ValueError):
    """The source cannot be converted; the message is one line with what, where and how to mend it."""


@dataclass
class Tree:
    """The files of a source.

    Attributes:
        name: of the source, for the card.
        files: relative path with "/" -> place.
        bad: (name, reason) of what is listed but cannot be read.
        ignored: hidden files and folders, and what an operating system leaves in archives.
        temporary: file to delete after the conversion.
    """

    name: str
    files: dict[str, Place] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0
    temporary: Path | None = None

    def close(self) -> None:
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)


def shown(name: str) -> str:
    """A name as it can be printed on any terminal, on one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def open_tree(source: Path, scratch: Path) -> Tree:
    """Lists a source.

    Args:
        scratch: folder for the unpacked copy of a compressed tar.

    Raises:
        SourceError: it does not exist, or is neither a folder nor an archive that can be read.
        OSError: the scratch folder is full or cannot be written.
    """
    try:
        if source.is_dir():
            return _folder(source)
        with open(source, "rb") as file:
            start = file.read(6)
    except FileNotFoundError:
        raise SourceError(f"there is no source {shown(str(source))}; give a folder, a zip, a tar, or digits") from None
    except OSError as error:
        raise SourceError(f"the source {shown(str(source))} cannot be read: {error.strerror}") from None
    try:
        if zipfile.is_zipfile(source):
            return _zip(source)
        for magic, packing in PACKED.items():
            if start.startswith(magic):
                return _compressed_tar(source, packing, scratch)
        if tarfile.is_tarfile(source):
            return _tar(source, source.name, source)
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SourceError(f"the archive {shown(str(source))} is damaged ({error}); get it again") from None
    raise SourceError(f"{shown(str(source))} is neither a folder nor a zip or tar (gz, xz, bz2) archive")


def _folder(source: Path) -> Tree:
    tree = Tree(source.resolve().name)

    def visit(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link back to a folder that we are inside
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    tree.ignored += 1
                elif entry.is_dir():
                    try:
                        visit(entry.path, f"{prefix}{entry.name}/", above | {here})
                    except OSError as error:
                        tree.bad.append((f"{prefix}{entry.name}/", f"cannot be listed: {error.strerror}"))
                else:
                    tree.files[prefix + entry.name] = Place(entry.path)

    try:
        visit(os.fspath(source), "", frozenset())
    except OSError as error:
        raise SourceError(f"the source {shown(str(source))} cannot be listed: {error.strerror}") from None
    return tree


def _clean(name: str, tree: Tree) -> str | None:
    """A member's name without "./" and the like; None for what is to be ignored."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts:
        tree.ignored += bool(parts)
        return None
    return "/".join(parts)


def _zip(source: Path) -> Tree:
    tree = Tree(source.name)
    with zipfile.ZipFile(source) as archive, open(source, "rb") as file:
        for member in archive.infolist():
            name = None if member.is_dir() else _clean(member.filename, tree)
            if name is None:
                continue
            if member.flag_bits & 1:
                tree.bad.append((name, "is encrypted in the zip"))
            elif member.compress_type not in (STORED, DEFLATED, BZIP2):
                tree.bad.append((name, f"is packed by method {member.compress_type}; pack the zip again with deflate"))
            else:
                # The local header repeats the name and may have other extra fields than the central directory.
                file.seek(member.header_offset)
                header = file.read(30)
                if len(header) < 30 or header[:4] != b"PK\3\4":
                    tree.bad.append((name, "has no header in the zip"))
                    continue
                name_size, extra_size = struct.unpack("<HH", header[26:30])
                start = member.header_offset + 30 + name_size + extra_size
                tree.files[name] = Place(
                    os.fspath(source), start, member.compress_size, member.compress_type, member.file_size, member.CRC
                )
    return tree


def _compressed_tar(source: Path, packing: str, scratch: Path) -> Tree:
    with tempfile.NamedTemporaryFile(dir=scratch, prefix=".unpacked-", suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
        try:
            with _unpacked(source, packing) as stream:
                shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
            tree = _tar(temporary, source.name, source)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    tree.temporary = temporary
    return tree


def _tar(path: Path, name: str, source: Path) -> Tree:
    tree = Tree(name)
    if not tarfile.is_tarfile(path):
        raise SourceError(f"{shown(str(source))} is compressed but holds no tar; unpack it and give the result")
    with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
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
                tree.files[member_name] = Place(os.fspath(path), member.offset_data, member.size)
    length = path.stat().st_size
    if any(place.offset + place.size > length for place in tree.files.values()):
        raise SourceError(f"the archive {shown(str(source))} is cut short; get it again")
    return tree
