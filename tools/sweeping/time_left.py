"""How much of a sweep is left, from the rows that train.py logs, and when a run must stop to be evaluated in time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EVALUATION = 0.25  # share of the minutes that is kept for evaluations as long as none was measured


@dataclass
class Budget:
    """The minutes that a sweep may take.

    Attributes:
        minutes: from the start of the sweep; 0 for no limit.
        evaluation: the seconds that the evaluations of a method took, as far as it is known; 0 otherwise.
    """

    minutes: float = 0.0
    evaluation: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the end of the budget; infinite without a limit."""
        return self._started + 60 * self.minutes - time.monotonic() if self.minutes else float("inf")

    @property
    def training(self) -> float:
        """Seconds that are left for training, before the evaluations."""
        return self.left - (1.2 * self.evaluation or _EVALUATION * 60 * self.minutes)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Return the rows that a run has logged; a last one that is being written is left out."""
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def steps_of(run: Path) -> int | None:
    """Return with how many steps a run ends, or None as long as that is not known."""
    path = run / "config.json"
    if not path.exists():
        return None
    config = json.loads(path.read_text())
    recipe, number = config["recipe"], config["data"]["number"]
    batches = -(-number // recipe["batch_size"]) if recipe.get("fill_last_batch") else number // recipe["batch_size"]
    all_steps = int(batches * recipe["epochs"])
    return min(all_steps, config["options"]["max_steps"] or all_steps)


class TimeLeft:
    """Says once how much of a run is left and how long it takes: after the second epoch of this start.

    Args:
        method, run: the method and the folder of its run.
        first_step: the step at which it starts or resumes.
        later: the number of methods that come after it.
    """

    def __init__(self, method: str, run: Path, first_step: int, later: int) -> None:
        self._method, self._run, self._first_step, self._later = method, run, first_step, later
        self._since, self._said = time.monotonic(), False

    def __call__(self) -> None:
        """Print the line if it is time for it."""
        if not self._said and (line := self.line()):
            print(line, flush=True)
            self._said = True

    def line(self) -> str:
        """Return the line, or nothing as long as the second epoch has not ended."""
        steps = steps_of(self._run)
        logged = [row for row in rows_of(self._run) if row["step"] > self._first_step and "loss" in row]
        if not steps or not logged or logged[-1]["epoch"] - logged[0]["epoch"] < 2:
            return ""
        step = logged[-1]["step"]
        per_step = (time.monotonic() - self._since) / (step - self._first_step)  # with evaluations and the start
        left = as_text((steps - step) * per_step)
        line = f"tools.sweep: {self._method} is at step {step:,} of {steps:,}; about {left} of training left"
        if not self._later:
            return line
        methods = f"{self._later} more method{'s' if self._later > 1 else ''}"
        return f"{line}, and {as_text(steps * per_step * self._later)} for {methods}, if they are as fast"


def as_text(seconds: float) -> str:
    """Return a duration for a reader, such as 1 h 05 min."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min" if minutes else "1 min"
