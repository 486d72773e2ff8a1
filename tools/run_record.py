"""What a run's folder says of the run: its method, recipe and data, how far it went, and what was measured of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.options import Failure

_NO_MEASURE = ("classes", "image_size", "step", "seed", "seconds")  # numbers of an eval-*.json that measure nothing


@dataclass(frozen=True)
class Measured:
    """One protocol's result.

    Attributes:
        protocol: its id.
        file: the name of the file that holds it.
        values: what it measured, such as top1 and top5, in percent.
        step: of the checkpoint that was measured; None where the file does not say.
        images: the number that was classified, or None.
    """

    protocol: str
    file: str
    values: Mapping[str, float]
    step: int | None
    images: int | None


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it.

    Attributes:
        name: of the folder.
        config: the whole of config.json.
        step, samples_seen, seconds: how far it went; None where no file says so yet.
        samples_per_s: median over the logged steps, or None.
        final_loss: the newest that was logged, or None.
        results: of every eval-*.json, by protocol.
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
        tuple(sorted(_results(run), key=lambda result: result.protocol)),
    )  # fmt: skip


def _results(run: Path) -> Iterator[Measured]:
    for path in sorted(run.glob("eval-*.json")):
        found = _object(path)
        try:
            protocol, images = str(found["protocol"]["id"]), found.get("val_data", {}).get("number")
        except (KeyError, TypeError, AttributeError):
            raise Failure(f"{path} names no protocol; measure again with eval.py") from None
        values = {
            name: float(value)
            for name, value in found.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NO_MEASURE
        }
        yield Measured(protocol, path.name, values, found.get("step"), images)


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
