"""The seal of a checkpoint: the SHA-256 of each of its files, compared with what is read.

A file that is not there or not what was written is damage; one that the disk does not let anybody read may be whole,
and nothing is decided about it.
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
_Look = list[tuple[str, int, int, int]]
_Content = TypeVar("_Content")

_known: dict[Path, _Look] = {}  # whole checkpoints: what their files looked like when this process wrote or read them


class CorruptCheckpoint(ValueError):
    """A checkpoint is not what was written: one line that names the file."""


def write_manifest(path: Path) -> None:
    """Writes the manifest of a checkpoint's files: whatever changes one of them later is noticed."""
    digests = {file.name: _digest(file) for file in sorted(path.iterdir()) if file.name != _MANIFEST}
    (path / _MANIFEST).write_text(json.dumps(digests))


def digests_of(path: Path) -> dict[str, str]:
    """The manifest: the digests of the files that a checkpoint has, and of no others.

    Raises:
        Damaged: it is not what was written.
        OSError: the disk cannot be read.
    """
    digests = read(path / _MANIFEST, json.loads)
    if not isinstance(digests, dict) or digests.keys() != _ALWAYS | ({PAIRING} if (path / PAIRING).exists() else set()):
        raise CorruptCheckpoint(f"{_MANIFEST} does not list the files that are there")
    return digests


def read(file: Path, parse: Callable[[bytes], _Content], digests: Mapping[str, str] | None = None) -> _Content:
    """A file as `parse` understands it; read once, so that what is parsed is what was compared.

    Raises:
        Damaged: it is not what was written.
        OSError: the disk cannot be read.
    """
    with _reading(file):
        content = file.read_bytes()
        if digests is not None and hashlib.sha256(content).hexdigest() != digests[file.name]:
            raise ValueError("it is not what was written, by its checksum")
        return parse(content)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is what was written; read only if its files may have changed since that was known.

    Raises:
        OSError: the disk cannot be read.
    """
    try:
        look = look_of(path)
        if _known.get(path) == look:
            return True
        for name, digest in digests_of(path).items():
            with _reading(path / name):
                if _digest(path / name) != digest:
                    return False
    except CorruptCheckpoint:
        return False
    remember(path, look)
    return True


def look_of(path: Path) -> _Look:
    """What tells, without reading them, that a checkpoint's files have changed."""
    with _reading(path), os.scandir(path) as entries:
        facts = [(entry.name, entry.stat()) for entry in entries]
    return sorted((name, fact.st_ino, fact.st_size, fact.st_mtime_ns) for name, fact in facts)


def remember(path: Path, look: _Look) -> None:
    """From now on a checkpoint that looks like this is known to be whole."""
    _known[path] = look


def forget(path: Path) -> None:
    """The checkpoint is gone."""
    _known.pop(path, None)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Tells damage from a disk that cannot be read, each in one line."""
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
