"""The manifest of a checkpoint: the SHA-256 of each of its files, compared on reading.

A file that is missing or not what was written is damage. A file that the disk cannot read may be intact: it raises
OSError, and nothing is decided about it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

PAIRING = "pairing.safetensors"  # where the method has partners
_MANIFEST = "manifest.json"
_ALWAYS = {"state.json", "model.safetensors", "optimizer.safetensors"}
_Stats = list[tuple[str, int, int, int]]
_Content = TypeVar("_Content")

_known: dict[Path, _Stats] = {}  # intact checkpoints: the stats of their files when this process wrote or read them


class CorruptCheckpoint(ValueError):
    """A checkpoint is not what was written; the message is one line that names the file."""


def write_manifest(path: Path) -> None:
    """Write the manifest of a checkpoint's files, so that any later change of one of them is detected."""
    digests = {file.name: _digest(file) for file in sorted(path.iterdir()) if file.name != _MANIFEST}
    (path / _MANIFEST).write_text(json.dumps(digests))


def digests_of(path: Path) -> dict[str, str]:
    """Return the manifest: the digests of the files that a checkpoint has, and of no others.

    Raises:
        CorruptCheckpoint: the manifest is not what was written.
        OSError: the disk cannot be read.
    """
    digests = read(path / _MANIFEST, json.loads)
    if not isinstance(digests, dict) or digests.keys() != _ALWAYS | ({PAIRING} if (path / PAIRING).exists() else set()):
        raise CorruptCheckpoint(f"{_MANIFEST} does not list the files that are there")
    return digests


def read(file: Path, parse: Callable[[bytes], _Content], digests: Mapping[str, str] | None = None) -> _Content:
    """Return a file as `parse` reads it. The file is read once, so what is parsed is what was compared.

    Raises:
        CorruptCheckpoint: the file is not what was written.
        OSError: the disk cannot be read.
    """
    with _reading(file):
        content = file.read_bytes()
        if digests is not None and hashlib.sha256(content).hexdigest() != digests[file.name]:
            raise ValueError("its checksum is not that of the manifest")
        return parse(content)


def is_intact(path: Path) -> bool:
    """Return whether a checkpoint is what was written; reads it only if its files may have changed since then.

    Raises:
        OSError: the disk cannot be read.
    """
    try:
        stats = stats_of(path)
        if _known.get(path) == stats:
            return True
        for name, digest in digests_of(path).items():
            with _reading(path / name):
                if _digest(path / name) != digest:
                    return False
    except CorruptCheckpoint:
        return False
    remember(path, stats)
    return True


def stats_of(path: Path) -> _Stats:
    """Return name, inode, size and time of each of a checkpoint's files: equal stats show that none has changed."""
    with _reading(path), os.scandir(path) as entries:
        files = [(entry.name, entry.stat()) for entry in entries]
    return sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in files)


def remember(path: Path, stats: _Stats) -> None:
    """Record that a checkpoint with these stats is intact."""
    _known[path] = stats


def forget(path: Path) -> None:
    """Drop the record of a checkpoint that was removed."""
    _known.pop(path, None)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Context manager: turn errors of reading into CorruptCheckpoint, or into OSError if the disk cannot be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptCheckpoint(f"{file.name}: {error.strerror}") from None
    except OSError as error:
        raise OSError(f"{file} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CorruptCheckpoint(f"{file.name}: {(str(error).splitlines() or [''])[0]}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
