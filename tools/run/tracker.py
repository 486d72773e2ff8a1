"""Sends a run's metrics and pictures to TensorBoard or W&B, through Accelerate, under the names of metrics.jsonl.

Both write into the run's folder, to RUN/tensorboard or RUN/wandb. W&B is offline unless WANDB_MODE=online is set;
`wandb sync RUN/wandb/offline-run-*` uploads the run later. A resumed run continues its curves at the checkpoint:
TensorBoard drops later steps, and W&B gets the run's former id.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

_FLUSH_SECONDS = 30  # the interval at which TensorBoard writes to the disk


class Tracker:
    """A context manager around a tracker. Every process creates one; only the main process writes.

    Training goes on if the disk refuses a row or picture. The trackers' writers do not recover from that, so nothing
    more is sent then, and the loss is counted and reported.

    Args:
        accelerator: an Accelerator created with `log_with=kind`.
        kind: "tensorboard", "wandb", or None, with which nothing is written.
        folder: the folder of the run.
        config: what config.json holds.
        step: the step at which the run starts; above 0 if it is resumed.

    Attributes:
        lost: the number of rows and pictures that were not sent.
    """

    def __init__(
        self, accelerator: Accelerator, kind: str | None, folder: Path, config: Mapping[str, Any], step: int
    ) -> None:
        self._accelerator, self.kind = accelerator, kind
        self._unreported: list[str] = []
        self.lost = 0
        if kind is None:
            return
        accelerator.project_configuration.logging_dir = str(folder)
        settings: dict[str, Any] = {"purge_step": step + 1 if step else None, "flush_secs": _FLUSH_SECONDS}
        if kind == "wandb":
            os.environ.setdefault("WANDB_MODE", "offline")
            settings = {
                "dir": str(folder),
                "name": folder.name,
                "id": _wandb_id(folder / "wandb-id") if self._main else None,
                "resume": "allow",
                "settings": {"console": "off", "silent": True},
            }
        # Accelerate names TensorBoard's folder after the project.
        accelerator.init_trackers("likeness" if kind == "wandb" else kind, init_kwargs={kind: settings})
        if not self._main:
            return
        tracker = accelerator.get_tracker(kind)
        if kind == "wandb":
            tracker.store_init_configuration(dict(config))
        else:  # Accelerate's store_init_configuration would add a separate run, named after the time, at each start
            tracker.writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", step)

    @property
    def _main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    def log(self, row: Mapping[str, Any]) -> None:
        """Send the numbers of a row of metrics."""
        if self.kind is not None:
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
            self._send(lambda: self._accelerator.log(numbers, row["step"]))

    def pictures(self, step: int, **named: Image.Image) -> None:
        """Send pictures by name. Only the main process may call it."""
        if self.kind is not None:
            layout = {"dataformats": "NHWC"} if self.kind == "tensorboard" else {}
            stacks = {name: np.asarray(picture.convert("RGB"))[None] for name, picture in named.items()}
            tracker = self._accelerator.get_tracker(self.kind)
            self._send(lambda: tracker.log_images(stacks, step, **layout))

    def warnings(self) -> list[str]:
        """Return a line if the tracker has failed since the last call."""
        lines, self._unreported = self._unreported, []
        return lines

    @property
    def counts(self) -> dict[str, int]:
        """Fields for a row of metrics; none as long as nothing was lost."""
        return {"lost_by_tracker": self.lost} if self.lost else {}

    def _send(self, send: Callable[[], object]) -> None:
        if not self.lost:
            try:
                send()
                return
            except OSError as error:
                self._unreported.append(
                    f"WARNING: {self.kind} could not be written ({error}) and gets nothing more; training goes on, "
                    "metrics.jsonl holds every number: free some disk space, then --resume"
                )
        self.lost += 1

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Write what is still buffered and close the tracker; a second call does nothing."""
        trackers, self._accelerator.trackers = self._accelerator.trackers, []
        for tracker in trackers:
            try:
                tracker.finish()
            except OSError as error:
                if not self.lost:
                    print(f"train.py: WARNING: {self.kind} could not be written to its end ({error})", file=sys.stderr)


def _wandb_id(path: Path) -> str:
    """Return the run's id at W&B, which its first start creates and stores in a file."""
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()
