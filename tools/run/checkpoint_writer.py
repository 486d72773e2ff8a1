"""Writes a run's checkpoints while training goes on: a step waits for the copy into host memory, not for the disk."""

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
    """One checkpoint at a time, in a thread; only the main process writes, the others wait for nothing.

    A disk that refuses costs that checkpoint and no step: the ones before stay, the loss of it is counted and told.

    Args:
        folder: of the checkpoints.
        keep: newest ones that stay, beside the best.
        main: whether this process writes.

    Attributes:
        failed: checkpoints that could not be written.
    """

    def __init__(self, folder: Path, keep: int, main: bool) -> None:
        self._folder, self._keep, self._main = folder, keep, main
        self._host = HostCopy()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._untold: list[str] = []
        self.failed = 0

    def save(self, method: Method, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Starts to write this moment's state; waits first for an earlier checkpoint that is still being written."""
        if not self._main:
            return
        self.wait()
        snapshot = self._host.take(method, optimizer, state)
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="likeness-checkpoint")
        self._thread.start()

    def wait(self) -> bool:
        """Waits until what was saved last is on the disk; whether it is.

        Raises:
            Exception: what went wrong, if it was not the disk.
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
        """What was not told yet: a line for each checkpoint that could not be written."""
        told, self._untold = self._untold, []
        return told

    @property
    def counts(self) -> dict[str, int]:
        """What a row of metrics should tell: nothing as long as all is well."""
        return {"failed_checkpoints": self.failed} if self.failed else {}

    def _write(self, snapshot: Snapshot) -> None:
        try:
            checkpoint.write(self._folder, snapshot, self._keep)
        except OSError as error:
            self.failed += 1
            self._error = error
            self._untold.append(
                f"WARNING: the checkpoint of step {snapshot.step:,} could not be written ({error}); earlier ones are "
                "intact and training goes on: free some space"
            )
        except BaseException as error:
            self._error = error
