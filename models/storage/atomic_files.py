"""Files and folders that survive a power failure: contents are synced before the names that lead to them.

A rename is on the disk once its folder is synced, and a new folder once its parent is.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.formats.sync import sync_folder


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, and sync the parents."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Replace the content of a file completely, or leave it as it was.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        sync_file(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
