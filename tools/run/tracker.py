"""A run in TensorBoard or W&B, through Accelerate's trackers, under the names of metrics.jsonl.

Both write into the run's folder: RUN/tensorboard and RUN/wandb. W&B sends nothing unless WANDB_MODE=online says so;
`wandb sync RUN/wandb/offline-run-*` sends it later. A resumed run goes on where its checkpoint stands: TensorBoard is
told to forget later steps, W&B gets the id that the run had.
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

_FLUSH_SECONDS = 30


class Tracker:
    """Sends rows and pictures on; without `kind` it does nothing. Made on every process; the main one writes.

    Args:
        accelerator: made with `log_with=kind`.
        kind: "tensorboard", "wandb" or None.
        folder: of the run.
        config: what config.json holds.
        step: that the run stands at; above 0 where it is resumed.

    Attributes:
        lost: rows and pictures that it did not get, since the disk refused one: its writer does not recover from that.
    """

    def __init__(
        self, accelerator: Accelerator, kind: str | None, folder: Path, config: Mapping[str, Any], step: int
    ) -> None:
        self._accelerator, self.kind = accelerator, kind
        self._untold: list[str] = []
        self.lost = 0
        if kind is None:
            return
        accelerator.project_configuration.logging_dir = str(folder)
        settings: dict[str, Any] = {"purge_step": step + 1 if step else None, "flush_secs": _FLUSH_SECONDS}
        if kind == "wandb":
            os.environ.setdefault("WANDB_MODE", "offline")
            settings = {
                "dir": str(folder), "name": folder.name, "id": _own_id(folder / "wandb-id") if self._main else None,
                "resume": "allow", "settings": {"console": "off", "silent": True},
            }  # fmt: skip
        # TensorBoard's folder is named after the project.
        accelerator.init_trackers("likeness" if kind == "wandb" else kind, init_kwargs={kind: settings})
        if not self._main:
            return
        tracker = accelerator.get_tracker(kind)
        if kind == "wandb":
            tracker.store_init_configuration(dict(config))
        else:  # Accelerate's way would add a run of its own, named by the clock, at each start
            tracker.writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", step)

    @property
    def _main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    def log(self, row: Mapping[str, Any]) -> None:
        """The numbers of a row of metrics, at its step."""
        if self.kind is not None:
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
            self._send(lambda: self._accelerator.log(numbers, row["step"]))

    def pictures(self, step: int, **named: Image.Image) -> None:
        """Shows pictures; the main process alone calls it."""
        if self.kind is not None:
            layout = {"dataformats": "NHWC"} if self.kind == "tensorboard" else {}
            stacks = {name: np.asarray(picture.convert("RGB"))[None] for name, picture in named.items()}
            tracker = self._accelerator.get_tracker(self.kind)
            self._send(lambda: tracker.log_images(stacks, step, **layout))

    def warnings(self) -> list[str]:
        """What was not told yet: a line where the tracker has failed."""
        told, self._untold = self._untold, []
        return told

    @property
    def counts(self) -> dict[str, int]:
        """What a row of metrics should tell: nothing as long as all is well."""
        return {"lost_by_tracker": self.lost} if self.lost else {}

    def _send(self, send: Callable[[], object]) -> None:
        if not self.lost:
            try:
                send()
                return
            except OSError as error:
                self._untold.append(
                    f"WARNING: {self.kind} could not be written ({error}) and gets nothing more; training goes on, "
                    "metrics.jsonl holds every number: free some space, then --resume"
                )
        self.lost += 1

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Writes what is left, also of a run that was stopped; once."""
        trackers, self._accelerator.trackers = self._accelerator.trackers, []
        for tracker in trackers:
            try:
                tracker.finish()
            except OSError as error:
                if not self.lost:
                    print(f"train.py: WARNING: {self.kind} could not be written to its end ({error})", file=sys.stderr)


def _own_id(path: Path) -> str:
    """The id under which W&B knows this run, made at its first start."""
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()
