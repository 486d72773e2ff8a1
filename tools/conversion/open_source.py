"""A source as a tree of files, whether it is a folder, a zip or a tar: relative name -> where the bytes lie.

The archives are in `archives.py`. Nothing here follows a link out of the source unless it is asked to.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

from pipelines.formats.regular_file import regular
from pipelines.printable import printable
from tools.conversion import archives
from tools.conversion.byte_locations import ByteRange
from tools.conversion.path_table import TABLES
from tools.conversion.tree import SourceError, SourceTree

SINGLE_FILES = (*TABLES, ".parquet")  # which can be a source alone


def open_tree(source: Path, scratch: Path, follow_links: bool = False) -> SourceTree:
    """Lists a source.

    Args:
        scratch: folder for the unpacked copy of a compressed tar.
        follow_links: take links that lead out of a source folder.

    Raises:
        SourceError: it does not exist, or is neither a folder nor an archive that can be read.
        OSError: the scratch folder is full or cannot be written.
    """
    try:
        if source.is_dir():
            return _folder(source, follow_links)
        with open(source, "rb", opener=regular) as file:
            start = file.read(6)
    except FileNotFoundError:
        raise SourceError(
            f"there is no source {printable(str(source))}; give a folder, a zip, a tar, or digits"
        ) from None
    except OSError as error:
        raise SourceError(f"the source {printable(str(source))} cannot be read: {error.strerror}") from None
    try:
        if archives.is_zip(source):
            return archives.zip_tree(source)
        for magic, packing in archives.PACKED.items():
            if start.startswith(magic):
                return archives.compressed_tar_tree(source, packing, scratch)
        if archives.is_tar(source):
            return archives.tar_tree(source, source.name, source)
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise SourceError(f"the archive {printable(str(source))} is damaged ({error}); get it again") from None
    if source.suffix.lower() in SINGLE_FILES:
        return SourceTree(source.name, {source.name: ByteRange(os.fspath(source))})
    raise SourceError(f"{printable(str(source))} is neither a folder nor a zip or tar (gz, xz, bz2) archive")


def _folder(source: Path, follow_links: bool) -> SourceTree:
    tree = SourceTree(source.resolve().name)
    root = os.path.realpath(source)
    # (folder, its name and "/", the folders around it, whether a link led here). No recursion: folders nest as deep
    # as a path is long. A link inside a linked folder is not followed, else a few links make a tree without end.
    left: list[tuple[str, str, frozenset[tuple[int, int]], bool]] = [(os.fspath(source), "", frozenset(), False)]
    while left:
        folder, prefix, above, linked = left.pop()
        try:
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in above:  # a link back to a folder that we are inside
                continue
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            if not prefix:
                raise SourceError(f"the source {printable(str(source))} cannot be listed: {error.strerror}") from None
            tree.bad.append((prefix, f"cannot be listed: {error.strerror}"))
            continue
        for entry in entries:
            name = prefix + entry.name
            if tree.ignores(name):
                continue
            link = entry.is_symlink()
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # a link to itself
                tree.bad.append((name, f"is a link that leads nowhere: {error.strerror}"))
                continue
            if link and not os.path.exists(entry.path):
                tree.bad.append((name, "is a link that leads nowhere: No such file or directory"))
                continue
            leads = os.path.realpath(entry.path) if link and not follow_links else root
            if not _inside(leads, root):
                tree.bad.append((name, "is a link out of the source; take such links with --follow-links"))
            elif is_folder and link and linked:
                tree.bad.append((f"{name}/", "is a link inside a folder that a link led to"))
            elif is_folder:
                left.append((entry.path, f"{name}/", above | {here}, linked or link))
            else:
                tree.files[name] = ByteRange(entry.path)
    return tree


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root if root.endswith("/") else f"{root}/")
