"""Writes files all or nothing: a hidden folder beside the target, from which finished files are moved into place.

    .photos.beton-1a2b3c4d.tmp/     the files being written, `lock`, and at the end `commit.json`

The lock is an flock: the kernel releases it when the process ends, however that happens. The folder of a killed process
is cleaned up by the next process that writes the same target. Without a `commit.json` nothing outside the folder has
changed yet, and the folder is removed. With one, every file was complete, and the moves that it lists are finished.
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
_UNIQUE = r"[a-z0-9_]{8}"  # the random part of a name that mkdtemp chooses


class TargetError(ValueError):
    """The target cannot be written. The message is one line."""


class Staging:
    """A context manager that holds the staging folder of one target, and removes the folder on exit.

    Args:
        out: the target. Folders that killed processes left behind for it are dealt with first (see `recover`).

    Attributes:
        folder: the folder to write into.
        completed: whether the commit of an earlier, killed process has been finished.
        unclear: staging folders of the same target on a file system without locks. Their processes may still be
            running, on this machine or another, so these folders are left alone.

    Raises:
        TargetError: the target's folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.completed = recover(out)
            self.unclear = [folder for folder in _folders(out) if (folder / _UNLOCKED).exists()]
            self.folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".tmp", dir=out.parent))
            self._handle = os.open(self.folder / _UNLOCKED, os.O_RDWR | os.O_CREAT)
            with contextlib.suppress(OSError):  # no locks on this file system: other processes leave the folder alone
                fcntl.flock(self._handle, fcntl.LOCK_EX)
                os.rename(self.folder / _UNLOCKED, self.folder / _LOCK)
        except OSError as error:
            raise TargetError(
                f"the target {printable(str(out))} cannot be written: {error.strerror or error}; give another target "
                "or free some disk space"
            ) from None

    def commit(self, moves: list[tuple[Path, Path]], remove: list[Path]) -> None:
        """Move finished files and folders to their targets, then remove obsolete ones.

        Once commit.json is on the disk, a process that is killed here has its moves finished by the next one.

        Args:
            moves: pairs (path in this folder, target beside this folder), in the order in which they are moved.
            remove: files and folders beside this folder that are removed where they exist.
        """
        plan = {"moves": [[a.name, b.name] for a, b in moves], "remove": [path.name for path in remove]}
        temporary = self.folder / f"{_COMMIT}.tmp"
        with open(temporary, "w", encoding="ascii") as file:
            json.dump(plan, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / _COMMIT)
        sync_folder(self.folder)
        _finish_commit(self.folder)

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _finish_commit(self.folder)  # if an exception interrupted it half-way
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._handle)


def _folders(out: Path) -> list[Path]:
    """Return every staging folder of a target."""
    pattern = re.compile(re.escape(f".{out.name}-") + _UNIQUE + r"\.tmp", re.DOTALL)
    return [out.parent / name for name in os.listdir(out.parent) if pattern.fullmatch(name)]


def recover(out: Path) -> bool:
    """Deal with the folders of killed processes that wrote `out`: finish their commits, then remove the folders.

    Returns:
        Whether a commit was finished.
    """
    completed = False
    for folder in _folders(out):
        try:
            handle = regular(folder / _LOCK, os.O_RDWR)
        except OSError:  # being created just now, or on a file system without locks
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process is running
            continue
        else:
            completed |= _finish_commit(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
    return completed


def _finish_commit(folder: Path) -> bool:
    """Perform the moves and removals of the folder's commit.json that are still to be done.

    Returns:
        Whether the folder has a commit.json.
    """
    try:
        plan = json.loads(content(folder / _COMMIT))
    except FileNotFoundError:
        return False
    for source, target in plan["moves"]:
        finished, destination = folder / source, folder.parent / target
        if os.path.lexists(finished):
            if destination.is_dir() and not destination.is_symlink():  # os.replace cannot replace a folder
                destination.rename(folder / f"{source}.replaced")
            os.replace(finished, destination)
    sync_folder(folder.parent)
    for name in plan["remove"]:
        obsolete = folder.parent / name
        if obsolete.is_dir() and not obsolete.is_symlink():
            shutil.rmtree(obsolete, ignore_errors=True)
        else:
            obsolete.unlink(missing_ok=True)
    (folder / _COMMIT).unlink()
    return True
