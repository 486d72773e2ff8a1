"""A run's folder, read: what it was asked, what it logged, what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import build, resolve
from models.method import Method
from models.storage import checkpoint
from models.storage.checkpoint import Checkpoint
from models.storage.manifest import CorruptCheckpoint
from models.training.config import with_current_names
from tools.command_line import Failure
from tools.run.metrics_file import row_of


@dataclass(frozen=True)
class RunRecord:
    """What is in a run's folder.

    Attributes:
        config: of config.json.
        rows: of metrics.jsonl, in the order in which they were logged.
        summary: of summary.json; empty while the run is not finished.
        evaluations: of eval-NAME.json, by NAME.
    """

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """The steps at which a number was logged, and the numbers."""
        found = [(row["step"], row[name]) for row in self.rows if isinstance(row.get(name), int | float)]
        return [step for step, _ in found], [value for _, value in found]

    def last(self, name: str) -> Any:
        """The newest value of a field of the rows, or None."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    @property
    def planned(self) -> int | None:
        """The steps that were asked for; None where config.json does not say."""
        recipe, asked = self.config["recipe"], self.config["options"].get("max_steps")
        try:
            whole = int(self.config["data"]["number"] // recipe["batch_size"] * recipe["epochs"])
        except (KeyError, TypeError, ZeroDivisionError):
            return asked or None
        return min(whole, asked or whole)

    @property
    def state(self) -> str:
        """Whether it is finished, and else how far it got."""
        if self.summary:
            return "finished"
        return f"unfinished, step {self.rows[-1]['step']:,}" + (f" of {self.planned:,}" if self.planned else "")


def read_run(path: Path) -> RunRecord:
    """Reads a run that is finished, stopped or still going on.

    Raises:
        Failure: no run, nothing logged yet, or a damaged file.
    """
    config = read_config(path)
    summary = path / "summary.json"
    evaluations = {file.stem.removeprefix("eval-"): _object(file) for file in sorted(path.glob("eval-*.json"))}
    return RunRecord(
        path, config, _rows(path / "metrics.jsonl"), _object(summary) if summary.exists() else {}, evaluations
    )


def read_config(path: Path) -> dict[str, Any]:
    """What a run was asked to do.

    Raises:
        Failure: no run, or a damaged file.
    """
    if not (path / "config.json").is_file():
        raise Failure(f"{path} is no run of train.py: it has no config.json")
    config = _object(path / "config.json")
    for name, kind in {"method": str, "recipe": dict, "recipe_name": str, "data": dict, "options": dict}.items():
        if not isinstance(config.get(name), kind):
            raise Failure(f"{path / 'config.json'} lacks {name}; is it a run of train.py?")
    return config | {"recipe": with_current_names(config["recipe"])}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows that are whole; a last one that is being written is left out."""
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
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise Failure(f"{path} is damaged (it holds no object)")
    return content


def method_of(config: Mapping[str, Any]) -> Method:
    """The method that a config.json describes, with fresh weights.

    Raises:
        ValueError: an unknown method, or values that it refuses.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config["recipe"].items()}
    return build(config["method"], resolve(config["method"], config["recipe_name"], **values))


def kept_checkpoints(run: Path) -> list[Checkpoint]:
    """Every checkpoint of a run that is whole, oldest first.

    Raises:
        OSError: the disk cannot be read.
    """
    kept = []
    for path in reversed(checkpoint.list_checkpoints(run / "checkpoints")):
        try:
            kept.append(checkpoint.load(path))
        except CorruptCheckpoint:
            continue  # or just being removed by a run that goes on
    return kept
