"""Writes the checkpoints of a run in a thread: a step waits for the copy into host memory, not for the disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.method import Method
from models.storage import checkpoint
from models.storage.snapshot import HostCopy, Snapshot


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of the main process; on other processes it does nothing.

    `save` copies the state into host memory and returns; the thread then writes the copy. A further `save` waits until
    the thread is done. If the disk is full or cannot be written, training goes on: that checkpoint is lost, earlier
    ones stay intact, and the loss is counted and reported.

    Args:
        folder: the folder of the checkpoints.
        keep: how many of the newest checkpoints to keep, beside the best one.
        main: whether this process writes.

    Attributes:
        failed: the number of checkpoints that the disk refused.
    """

    def __init__(self, folder: Path, keep: int, main: bool) -> None:
        self._folder, self._keep, self._main = folder, keep, main
        self._host = HostCopy()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None  # raised by the thread, until `wait` takes it
        self._unreported: list[str] = []
        self.failed = 0

    def save(self, method: Method, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Copy the present state and start to write it, after waiting for an earlier checkpoint."""
        if not self._main:
            return
        self.wait()
        snapshot = self._host.take(method, optimizer, state)
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="likeness-checkpoint")
        self._thread.start()

    def wait(self) -> bool:
        """Wait until the last checkpoint is on the disk; return False if the disk refused it.

        Raises:
            Exception: an error of the thread that does not come from the disk.
        """
        if self._thread is None:
            return True
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None and not isinstance(error, OSError):
            raise error
        return error is None

    def warnings(self) -> list[str]:
        """Return a line for each checkpoint that was lost since the last call."""
        lines, self._unreported = self._unreported, []
        return lines

    @property
    def counts(self) -> dict[str, int]:
        """Fields for a row of metrics; none as long as no checkpoint was lost."""
        return {"failed_checkpoints": self.failed} if self.failed else {}

    def _write(self, snapshot: Snapshot) -> None:
        """Write a snapshot. Runs in the thread, where an exception would be lost; so it is kept for `wait`."""
        try:
            checkpoint.write(self._folder, snapshot, self._keep)
        except OSError as error:
            self.failed += 1
            self._error = error
            self._unreported.append(
                f"WARNING: the checkpoint of step {snapshot.step:,} could not be written ({error}); earlier ones are "
                "intact and training goes on: free some disk space"
            )
        except BaseException as error:
            self._error = error
