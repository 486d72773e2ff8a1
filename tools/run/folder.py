"""The folder of a run: config.json, metrics.jsonl, checkpoints/ and summary.json. Only the main process writes."""

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
    """Where a run writes.

    Args:
        path: made where it does not exist.
        resume: go on in a folder that holds a run; without it, such a folder is refused.
        main: whether this process writes.
        force: instead of refusing, move the folder aside.

    Attributes:
        rows: of metrics.jsonl, that this run stands on.
        note: what was moved where, or nothing.

    Raises:
        Failure: the folder holds a run already, is being written by one, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool, main: bool, force: bool = False) -> None:
        self.path, self._main = path, main
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        self._waiting: list[bytes] = []  # rows that the disk has refused
        self.rows, self.note = 0, ""
        if not main:
            return
        try:
            # A folder without is of a run that failed at its start.
            holds_a_run = self._holds_a_run(force)
            if holds_a_run and not resume and not force:
                raise Failure(
                    f"{path} holds a run; go on with --resume, move it aside with --force, or take another --output"
                )
            make_folder(path)
            self._unlock = locked(path, self)
            if holds_a_run and force:
                aside = unused(path)
                path.rename(aside)  # the folder that is made next syncs both names
                self.note = f"moved the run that was in {path} to {aside}"
                self.close()
                make_folder(path)
                self._unlock = locked(path, self)
            with self._metrics.open("a" if resume else "w"):
                pass
        except OSError as error:
            raise Failure(f"cannot write the run's folder {path}: {error.strerror}; take another --output") from None

    def write_config(self, config: Mapping[str, Any], step: int = 0) -> list[str]:
        """Writes config.json: what the run was asked to do; what to tell about it.

        Args:
            step: where it is above 0 the run goes on: config.json keeps what was asked first, and gets what changed.
        """
        line, file = "", self.path / "config.json"
        if step and self._main:
            config, line = resumed(_json(file), config, step)
        self._write(file.name, config)
        return [line] if line else []

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to metrics.jsonl; it is on the disk's way before this returns, so that a kill loses no row.

        A full disk costs no row either: those that it refuses are kept, and written with the next one that it takes.
        """
        if self._main:
            self._waiting.append((json.dumps(row) + "\n").encode())
            self.rows += 1
            with contextlib.suppress(OSError):
                self._append()

    @property
    def warnings(self) -> list[str]:
        """A line, as long as there are rows that could not be written."""
        if not self._waiting:
            return []
        return [
            f"WARNING: {self._metrics} cannot be written; {len(self._waiting)} rows wait in memory: free some space"
        ]

    def rewind(self, step: int, rows: int) -> list[str]:
        """Keeps the rows that belong to a checkpoint, each on a line of its own; a resumed run makes the others again.

        Args:
            step: of the checkpoint.
            rows: that there were when it was written.

        Returns:
            A line to show, where some of these are damaged or missing.

        Raises:
            Failure: the file cannot be read or written.
        """
        if not self._main:
            return []
        try:
            kept = rows_up_to(self._metrics.read_bytes(), step, rows)
            replace_file(self._metrics, b"".join(line + b"\n" for line in kept))
        except OSError as error:
            raise Failure(f"{self._metrics} cannot be read and written ({error.strerror}); mend that first") from None
        self.rows, name = len(kept), self._metrics.name
        if self.rows >= rows:
            return []
        return [f"warning: {name} lacks {rows - self.rows} of its {rows} rows up to step {step}: damaged or lost"]

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json: what came out."""
        if self._main:
            self._append()
        self._write("summary.json", summary)

    def close(self) -> None:
        """Lets other processes have the folder."""
        if self._main:
            self._unlock()

    def _append(self) -> None:
        """Writes the rows that wait; all of them, or none and raises OSError."""
        if not self._waiting:
            return
        with self._metrics.open("ab", buffering=0) as file:
            before, rows = file.tell(), b"".join(self._waiting)
            try:
                if file.write(rows) < len(rows):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)  # no half row
                raise
        self._waiting.clear()

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self._main:
            replace_file(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def _holds_a_run(self, force: bool) -> bool:
        """Whether there is something to lose; what cannot be read counts, for whoever moves it aside.

        Raises:
            Failure: it cannot be read.
        """
        try:
            return bool(checkpoint.list_checkpoints(self.checkpoints)) or _has_trained(self._metrics)
        except OSError as error:
            if force:
                return True
            told = error if error.filename is None else f"{error.filename} cannot be read ({error.strerror})"
            raise Failure(f"{told}; mend that, move the run aside with --force, or take another --output") from None


def _has_trained(metrics: Path) -> bool:
    """Whether a row is of a step behind the first: what comes before it can be made again in a moment."""
    lines = metrics.read_text(errors="replace").splitlines() if metrics.exists() else []
    return any('"step": 0,' not in line for line in lines if line)


def _json(file: Path) -> Any:
    """What a file holds; None where it is missing or holds no JSON."""
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def locked(path: Path, owner: object) -> Callable[[], object]:
    """Holds a folder for this process, until what is returned is called or `owner` is gone.

    A file system without locks holds nothing.

    Raises:
        Failure: another process that lives holds it.
    """
    handle = os.open(path, os.O_RDONLY)
    unlock = weakref.finalize(owner, os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        unlock()
        raise Failure(f"{path} is being written by another run; wait for its end, or take another --output") from None
    except OSError:
        unlock()
    return unlock


def unused(path: Path) -> Path:
    """The first of PATH-before-1, PATH-before-2, ... that does not exist."""
    return next(other for n in itertools.count(1) if not (other := path.with_name(f"{path.name}-before-{n}")).exists())
