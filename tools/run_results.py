"""What every protocol measured of a run, out of the files that eval.py left in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.options import Failure

_FIGURE = re.compile(r"top\d+|recall@\d+|map")  # what an evaluation calls its figures, all in percent


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


def results_of(run: Path) -> list[Measured]:
    """Of evaluations.jsonl, which keeps every evaluation, and of the eval-*.json, which keep the newest.

    Of two with the same protocol, images and step, the newer one.

    Raises:
        Failure: a file is damaged or holds no evaluation.
    """
    unique: dict[tuple[str, str, int | None], Measured] = {}
    for path, text in _texts(run):
        try:
            evaluation = json.loads(text)
            results = [_measured(evaluation, evaluation, evaluation.get("step"))]
            if evaluation.get("best"):  # the same protocol for the best checkpoint, measured beside
                results.append(_measured(evaluation["best"], evaluation, evaluation.get("best_step")))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Failure(f"{path} is no evaluation that can be read; measure again with eval.py") from None
        unique |= {(result.protocol, result.data, result.step): result for result in results}
    return list(unique.values())


def latest(results: Iterable[Measured], step: int | None = None) -> list[Measured]:
    """One result for each protocol and data set: that of `step` where there is one, else that of the last step."""
    chosen: dict[tuple[str, str], Measured] = {}
    for result in sorted(results, key=lambda result: (result.step == step, result.step or 0)):
        chosen[result.protocol, result.data] = result
    return [chosen[key] for key in sorted(chosen)]


def _texts(run: Path) -> Iterator[tuple[Path, str]]:
    """The evaluations as JSON, older ones first."""
    history = run / "evaluations.jsonl"
    lines = history.read_text(errors="replace").splitlines() if history.exists() else []
    yield from ((history, line) for line in lines)
    for path in sorted(run.glob("eval-*.json")):
        yield path, path.read_text(errors="replace")


def _measured(row: dict[str, Any], evaluation: dict[str, Any], step: int | None) -> Measured:
    values = {name: float(value) for name, value in row.items() if _FIGURE.fullmatch(name)}
    bounds = {name: pair for name, pair in row.get("interval", {}).items() if name in values}
    intervals = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
    data = evaluation.get("val_data", {})
    name = Path(str(data.get("path", ""))).stem
    return Measured(str(row["protocol"]["id"]), name, data.get("number"), values, intervals, step)
