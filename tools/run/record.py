"""Reads the folder of a run that is finished, stopped or still training: configuration, metrics, results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

from models import build
from models.method import Method
from models.methods.recipes import recipe_of_run
from models.storage import checkpoint
from models.storage.checkpoint import Checkpoint
from models.storage.manifest import CorruptCheckpoint
from models.training.config import with_current_names
from tools.command_line import Failure
from tools.run.metrics_file import row_of


@dataclass(frozen=True)
class RunRecord:
    """The content of a run's folder.

    Attributes:
        path: the folder.
        config: the content of config.json.
        rows: the rows of metrics.jsonl, in the order in which they were logged.
        summary: the content of summary.json; empty as long as the run is not finished.
        evaluations: the content of each eval-NAME.json, by NAME.
    """

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps at which a number was logged, and the numbers."""
        logged = [(row["step"], row[name]) for row in self.rows if isinstance(row.get(name), int | float)]
        return [step for step, _ in logged], [value for _, value in logged]

    def last(self, name: str) -> Any:
        """Return the newest value of a field of the rows; None if no row has it."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    @property
    def planned_steps(self) -> int | None:
        """The number of steps with which the run ends; None if config.json does not say."""
        recipe, max_steps = self.config["recipe"], self.config["options"].get("max_steps")
        try:
            extended = self.config.get("extended")
            epochs = extended[-1]["to_epoch"] if extended else recipe["epochs"]
            batches = self.config["data"]["number"] / recipe["batch_size"]
            all_epochs = int((ceil(batches) if recipe.get("fill_last_batch") else floor(batches)) * epochs)
        except (KeyError, TypeError, ZeroDivisionError):
            return max_steps or None
        return min(all_epochs, max_steps or all_epochs)

    @property
    def state(self) -> str:
        """ "finished", or "unfinished" with the step that was reached."""
        if self.summary.get("step", -1) >= self.rows[-1]["step"]:
            return "finished"
        total = f" of {self.planned_steps:,}" if self.planned_steps else ""
        return f"unfinished, step {self.rows[-1]['step']:,}{total}"


def read_run(path: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        Failure: it is not a run, nothing has been logged yet, or a file is damaged.
    """
    config = read_config(path)
    summary = path / "summary.json"
    evaluations = {file.stem.removeprefix("eval-"): _object(file) for file in sorted(path.glob("eval-*.json"))}
    return RunRecord(
        path, config, _rows(path / "metrics.jsonl"), _object(summary) if summary.exists() else {}, evaluations
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json of a run's folder; values of the recipe get the names that they have now.

    Raises:
        Failure: it is not a run, or the file is damaged.
    """
    if not (path / "config.json").is_file():
        raise Failure(f"{path} is no run of train.py: it has no config.json")
    config = _object(path / "config.json")
    for name, kind in {"method": str, "recipe": dict, "recipe_name": str, "data": dict, "options": dict}.items():
        if not isinstance(config.get(name), kind):
            raise Failure(f"{path / 'config.json'} lacks {name}; is it a run of train.py?")
    return config | {"recipe": with_current_names(config["recipe"])}


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of metrics.jsonl; an incomplete last line, which is being written, is left out.

    Raises:
        Failure: another line is damaged, or there is no row.
    """
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = row_of(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise Failure(f"{path} line {number} is damaged; remove that line")
    if not rows:
        raise Failure(f"{path} holds no metrics yet; wait for the run's first row")
    return rows


def _object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        Failure: the file is damaged.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise Failure(f"{path} is damaged (it does not hold a JSON object)")
    return content


def method_of(config: Mapping[str, Any]) -> Method:
    """Build the method that a config.json describes, with new weights.

    Raises:
        ValueError: the method is unknown, or refuses a value of the recipe.
    """
    return build(config["method"], recipe_of_run(config))


def kept_checkpoints(run: Path) -> list[Checkpoint]:
    """Return every undamaged checkpoint of a run, the oldest first.

    Raises:
        OSError: the disk cannot be read.
    """
    kept = []
    for path in reversed(checkpoint.list_checkpoints(run / "checkpoints")):
        try:
            kept.append(checkpoint.load(path))
        except CorruptCheckpoint:
            continue  # or being removed just now, by a run that is still training
    return kept
