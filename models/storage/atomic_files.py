"""What is still there after the power fails: contents before the names that lead to them, new folders in their parents.

A rename is on the disk once its folder is synced, and a new folder once its parent is.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.formats.sync import sync_folder


def make_folder(path: Path) -> None:
    """Makes a folder and those above it that are missing; they stay."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """Waits until a file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Gives a file a new content: all of it, or what was there stays.

    Raises:
        OSError: the disk refuses.
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
