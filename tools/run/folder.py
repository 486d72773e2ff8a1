"""The folder of a run: config.json, metrics.jsonl, checkpoints/ and summary.json. Only the main process writes it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.storage import checkpoint
from models.storage.atomic_files import make_folder, replace_file
from tools.command_line import Failure
from tools.run.metrics_file import rows_up_to
from tools.run.resume_log import resumed


class RunFolder:
    """The folder that a run writes, locked against other runs.

    Args:
        path: the folder; it is created if it does not exist.
        resume: continue in a folder that holds a run. Otherwise such a folder is refused.
        main: whether this process writes.
        force: move such a folder aside instead of refusing it.

    Attributes:
        rows: the number of rows of metrics.jsonl that this run has logged, over all its starts.
        note: a line that says what was moved where; empty if nothing was.

    Raises:
        Failure: the folder holds a run already, is being written by a run, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool, main: bool, force: bool = False) -> None:
        self.path, self._main = path, main
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        self._waiting: list[bytes] = []  # rows that the disk has not taken yet
        self.rows, self.note = 0, ""
        if not main:
            return
        try:
            holds_a_run = self._holds_a_run(force)
            if holds_a_run and not resume and not force:
                raise Failure(
                    f"{path} holds a run; go on with --resume, move it aside with --force, or take another --output"
                )
            make_folder(path)
            self._unlock = locked(path, self)
            if holds_a_run and force:
                aside = unused(path)
                path.rename(aside)  # make_folder below syncs the parent folder, and so this rename too
                self.note = f"moved the run that was in {path} to {aside}"
                self.close()
                make_folder(path)
                self._unlock = locked(path, self)
            with self._metrics.open("a" if resume else "w"):
                pass
        except OSError as error:
            raise Failure(f"cannot write the run's folder {path}: {error.strerror}; take another --output") from None

    def write_config(self, config: Mapping[str, Any], step: int = 0) -> list[str]:
        """Write config.json.

        Args:
            config: the configuration of this start of the run.
            step: the step at which it starts. Above 0 the run is resumed: config.json keeps the original configuration
                and gets an entry for this resume (see `resume_log.py`).

        Returns:
            Lines to show about what changed.
        """
        line, file = "", self.path / "config.json"
        if step and self._main:
            config, line = resumed(_json(file), config, step)
        self._write(file.name, config)
        return [line] if line else []

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl.

        The row is with the operating system when this returns, so that a kill loses no row. Rows that a full disk
        refuses wait in memory and are written with a later row.
        """
        if self._main:
            self._waiting.append((json.dumps(row) + "\n").encode())
            self.rows += 1
            with contextlib.suppress(OSError):
                self._append()

    @property
    def warnings(self) -> list[str]:
        """A line to show as long as rows wait in memory."""
        if not self._waiting:
            return []
        return [
            f"WARNING: {self._metrics} cannot be written; {len(self._waiting)} rows wait in memory: "
            "free some disk space"
        ]

    def rewind(self, step: int, rows: int) -> list[str]:
        """Remove rows logged after a checkpoint, which the resumed run logs again, and rows that are damaged.

        Args:
            step: the step of the checkpoint.
            rows: the number of rows when it was saved.

        Returns:
            A line to show if some of these rows are missing.

        Raises:
            Failure: the file cannot be read or written.
        """
        if not self._main:
            return []
        try:
            kept = rows_up_to(self._metrics.read_bytes(), step, rows)
            replace_file(self._metrics, b"".join(line + b"\n" for line in kept))
        except OSError as error:
            raise Failure(f"{self._metrics} cannot be read and written ({error.strerror}); fix that first") from None
        self.rows, name = len(kept), self._metrics.name
        if self.rows >= rows:
            return []
        return [f"warning: {name} lacks {rows - self.rows} of its {rows} rows up to step {step}: damaged or lost"]

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, after the rows that still wait in memory."""
        if self._main:
            self._append()
        self._write("summary.json", summary)

    def close(self) -> None:
        """Unlock the folder."""
        if self._main:
            self._unlock()

    def _append(self) -> None:
        """Write all waiting rows.

        Raises:
            OSError: the disk refused some of them; none was written.
        """
        if not self._waiting:
            return
        with self._metrics.open("ab", buffering=0) as file:
            before, rows = file.tell(), b"".join(self._waiting)
            try:
                if file.write(rows) < len(rows):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)  # leave no incomplete row
                raise
        self._waiting.clear()

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self._main:
            replace_file(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def _holds_a_run(self, force: bool) -> bool:
        """Return whether the folder holds training that would be lost; a run that failed at its start holds none.

        Args:
            force: count a folder that cannot be read as a run, because it will only be moved aside.

        Raises:
            Failure: the folder cannot be read.
        """
        try:
            return bool(checkpoint.list_checkpoints(self.checkpoints)) or _has_trained(self._metrics)
        except OSError as error:
            if force:
                return True
            reason = error if error.filename is None else f"{error.filename} cannot be read ({error.strerror})"
            raise Failure(f"{reason}; fix that, move the run aside with --force, or take another --output") from None


def _has_trained(metrics: Path) -> bool:
    """Return whether any row is of a step above 0; earlier rows, of the untrained network, are quickly made again."""
    lines = metrics.read_text(errors="replace").splitlines() if metrics.exists() else []
    return any('"step": 0,' not in line for line in lines if line)


def _json(file: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def locked(path: Path, owner: object) -> Callable[[], object]:
    """Lock a folder for this process; on a file system without locks, do nothing.

    Args:
        owner: the folder is unlocked when this object is garbage-collected, if not earlier.

    Returns:
        A function that unlocks the folder.

    Raises:
        Failure: another running process holds the lock.
    """
    handle = os.open(path, os.O_RDONLY)
    unlock = weakref.finalize(owner, os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        unlock()
        raise Failure(f"{path} is being written by another run; wait until it ends, or take another --output") from None
    except OSError:
        unlock()
    return unlock


def unused(path: Path) -> Path:
    """Return the first of PATH-before-1, PATH-before-2, ... that does not exist."""
    return next(other for n in itertools.count(1) if not (other := path.with_name(f"{path.name}-before-{n}")).exists())
