"""What a run's folder says of the run: its method, recipe and data, how far it went, and what was measured of it."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.options import Failure

_MEASURE = re.compile(r"top\d+|recall@\d+|map")  # what an evaluation's file calls its figures, all in percent


@dataclass(frozen=True)
class Measured:
    """One protocol's result.

    Attributes:
        protocol: its id.
        data: the name of the file of the images that were classified.
        images: their number, or None.
        values: what was measured, such as top1 and top5, in percent.
        intervals: low and high of each value, where the file says.
        step: of the checkpoint that was measured; None where the file does not say.
    """

    protocol: str
    data: str
    images: int | None
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    step: int | None


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it.

    Attributes:
        name: of the folder.
        config: the whole of config.json.
        step, samples_seen, seconds: how far it went; None where no file says so yet.
        samples_per_s: median over the logged steps, or None.
        final_loss: the newest that was logged, or None.
        results: of every evaluation; of two of the same protocol, images and step the newer one.
    """

    name: str
    config: dict[str, Any]
    step: int | None
    samples_seen: int | None
    seconds: float | None
    samples_per_s: float | None
    final_loss: float | None
    results: tuple[Measured, ...]


def read_run(run: Path) -> RunRecord:
    """Reads the JSON files of a run, finished or not.

    Raises:
        Failure: it is no run, or a file is damaged.
    """
    config_path = run / "config.json"
    if not config_path.is_file():
        raise Failure(f"{run} is no run of train.py: it has no config.json")
    config = _object(config_path)
    for name in ("method", "recipe", "data"):
        if name not in config:
            raise Failure(f"{config_path} says nothing of the run's {name}; it was edited or is of another program")
    rows = _rows(run / "metrics.jsonl")
    rates = [row["samples_per_s"] for row in rows if "samples_per_s" in row]
    losses = [row["loss"] for row in rows if "loss" in row]
    last = rows[-1] if rows else {}
    summary = _object(run / "summary.json") if (run / "summary.json").is_file() else {}
    return RunRecord(
        run.resolve().name, config,
        summary.get("step", last.get("step")), summary.get("samples_seen", last.get("samples_seen")),
        summary.get("seconds"), statistics.median(rates) if rates else None, losses[-1] if losses else None,
        tuple(_results(run)),
    )  # fmt: skip


def latest(results: Iterable[Measured], step: int | None = None) -> list[Measured]:
    """One result for each protocol and data set: that of `step` where there is one, else that of the last step."""
    chosen: dict[tuple[str, str], Measured] = {}
    for result in sorted(results, key=lambda result: (result.step == step, result.step or 0)):
        chosen[result.protocol, result.data] = result
    return [chosen[key] for key in sorted(chosen)]


def _results(run: Path) -> Iterable[Measured]:
    """Of evaluations.jsonl, which keeps every evaluation, and of the eval-*.json, which keep the newest."""
    history = run / "evaluations.jsonl"
    found = [(history, row) for row in _rows(history)]
    found += [(path, _object(path)) for path in sorted(run.glob("eval-*.json"))]
    unique: dict[tuple[str, str, int | None], Measured] = {}
    for path, evaluation in found:
        try:
            results = [_measured(evaluation, evaluation, evaluation.get("step"))]
            if evaluation.get("best"):  # the same protocol for the best checkpoint, measured beside
                results.append(_measured(evaluation["best"], evaluation, evaluation.get("best_step")))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Failure(f"{path} is no evaluation that can be read; measure again with eval.py") from None
        unique |= {(result.protocol, result.data, result.step): result for result in results}
    return unique.values()


def _measured(row: dict[str, Any], evaluation: dict[str, Any], step: int | None) -> Measured:
    values = {name: float(value) for name, value in row.items() if _MEASURE.fullmatch(name)}
    bounds = {name: pair for name, pair in row.get("interval", {}).items() if name in values}
    intervals = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
    data = evaluation.get("val_data", {})
    name = Path(str(data.get("path", ""))).stem
    return Measured(str(row["protocol"]["id"]), name, data.get("number"), values, intervals, step)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise Failure(f"{path} holds no JSON object; it was edited or is of another program")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last one that is being written, or was cut, is left out."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read ({error})") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise Failure(f"{path}, line {number} is no JSON; it was edited or damaged") from None
    return rows
