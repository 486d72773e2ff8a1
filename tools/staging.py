"""A hidden folder beside the target, where everything is made before it gets its name.

    .photos.beton-1a2b3c4d.tmp/     the finished files, `lock`, and at the end `commit.json`

The lock is the system's own and ends with its process, however that ends. What a killed process leaves is dealt with by
the next one that writes the same target: before `commit.json` is there nothing has changed outside, and the folder is
removed; afterwards everything is made, and the moves that it lists are carried on to their end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from pipelines.formats.regular_file import content, regular
from pipelines.formats.sync import sync_folder
from pipelines.printable import printable

_LOCK, _UNLOCKED, _COMMIT = "lock", "locking", "commit.json"
_UNIQUE = r"[a-z0-9_]{8}"  # what mkdtemp makes


class TargetError(ValueError):
    """The target cannot be written; one line."""


class Staging:
    """The folder for one conversion; on leaving the block nothing is left of it.

    Args:
        out: the target; what earlier conversions to it left behind is mended first.

    Attributes:
        folder: where to write.
        completed: whether an earlier conversion that was killed has been carried to its end.
        unclear: folders of other conversions to the target on a file system without locks; nobody can tell whether
            their processes live, on this machine or another.

    Raises:
        TargetError: the place cannot be written.
    """

    def __init__(self, out: Path) -> None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.completed = recover(out)
            self.unclear = [folder for folder in _folders(out) if (folder / _UNLOCKED).exists()]
            self.folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".tmp", dir=out.parent))
            self._handle = os.open(self.folder / _UNLOCKED, os.O_RDWR | os.O_CREAT)
            with contextlib.suppress(OSError):  # a file system without locks; others then leave the folder alone
                fcntl.flock(self._handle, fcntl.LOCK_EX)
                os.rename(self.folder / _UNLOCKED, self.folder / _LOCK)
        except OSError as error:
            raise TargetError(
                f"the target {printable(str(out))} cannot be written: {error.strerror or error}; give another, "
                "or free some space"
            ) from None

    def commit(self, moves: list[tuple[Path, Path]], remove: list[Path]) -> None:
        """Gives finished files and folders their names and then removes others; all of it, even if killed meanwhile.

        Args:
            moves: (in this folder, target beside it), in the order in which they are done.
            remove: files and folders beside this folder, if they exist.
        """
        plan = {"moves": [[a.name, b.name] for a, b in moves], "remove": [path.name for path in remove]}
        temporary = self.folder / f"{_COMMIT}.tmp"
        with open(temporary, "w", encoding="ascii") as file:
            json.dump(plan, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / _COMMIT)
        sync_folder(self.folder)
        _carry_out(self.folder)

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _carry_out(self.folder)  # if it was interrupted half-way
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._handle)


def _folders(out: Path) -> list[Path]:
    pattern = re.compile(re.escape(f".{out.name}-") + _UNIQUE + r"\.tmp", re.DOTALL)
    return [out.parent / name for name in os.listdir(out.parent) if pattern.fullmatch(name)]


def recover(out: Path) -> bool:
    """Mends what killed conversions to `out` left; returns whether one of them was carried to its end."""
    completed = False
    for folder in _folders(out):
        try:
            handle = regular(folder / _LOCK, os.O_RDWR)
        except OSError:  # just being made, or without locks
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process lives
            continue
        else:
            completed |= _carry_out(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
    return completed


def _carry_out(folder: Path) -> bool:
    """Does what is left to do of the folder's commit, if it has one."""
    try:
        plan = json.loads(content(folder / _COMMIT))
    except FileNotFoundError:
        return False
    for source, target in plan["moves"]:
        made, place = folder / source, folder.parent / target
        if os.path.lexists(made):
            if place.is_dir() and not place.is_symlink():  # a folder cannot be replaced in one step
                place.rename(folder / f"{source}.replaced")
            os.replace(made, place)
    sync_folder(folder.parent)
    for name in plan["remove"]:
        place = folder.parent / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
    (folder / _COMMIT).unlink()
    return True
