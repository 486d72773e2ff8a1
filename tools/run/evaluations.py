"""What every protocol measured of a run, out of the files that eval.py left in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.evaluation.protocols.registry import protocol_of
from tools.command_line import Failure


@dataclass(frozen=True)
class Measured:
    """One protocol's result.

    Attributes:
        protocol: its id.
        values: what was measured, such as top1 and top5, in percent.
        intervals: low and high of each value, where the file says.
        step: of the checkpoint that was measured; None where the file does not say.
        images: how many were classified, or None.
        data: the name of their file.
        same_images: what was classified is what was learned from: no held-out accuracy.
        case: what numbers of one protocol must share to be compared, by what it is: (what a person reads, what it is
            told apart by) of the images classified, those learned from, the views and the seeds.
    """

    protocol: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    step: int | None
    images: int | None
    data: str
    same_images: bool
    case: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The same for results that can be compared."""
        return self.protocol, *(which for _, which in self.case)


def results_of(run: Path) -> list[Measured]:
    """Of evaluations.jsonl, which keeps every evaluation, and of the eval-*.json, which keep the newest.

    Of two of the same key and step, the newer one. A damaged line of evaluations.jsonl is left out; `damaged_lines`
    names it.

    Raises:
        Failure: an eval-*.json is damaged or holds no evaluation.
    """
    unique: dict[tuple[tuple[str, ...], int | None], Measured] = {}
    for path, number, found in _read(run):
        if found is None and number is None:
            raise Failure(f"{path} is no evaluation that can be read; measure again with eval.py")
        unique |= {(result.key, result.step): result for result in found or ()}
    return list(unique.values())


def damaged_lines(run: Path) -> list[str]:
    """A line for each line of evaluations.jsonl that is no evaluation, such as one that a loss of power has torn."""
    return [
        f"{path}, line {number}, is no evaluation that can be read and was left out"
        for path, number, found in _read(run)
        if found is None and number is not None
    ]


def latest(results: Iterable[Measured], step: int | None = None) -> list[Measured]:
    """One result for each key: that of `step` where there is one, else that of the last step."""
    chosen: dict[tuple[str, ...], Measured] = {}
    for result in sorted(results, key=lambda result: (result.step == step, result.step or 0)):
        chosen[result.key] = result
    return [chosen[key] for key in sorted(chosen)]


def titles(results: Iterable[Measured]) -> dict[tuple[str, ...], str]:
    """What each key is called: its protocol's id, and of several with that id what differs among them."""
    cases: dict[str, dict[tuple[str, ...], Measured]] = {}
    for result in results:
        cases.setdefault(result.protocol, {})[result.key] = result
    return {
        key: ", ".join([protocol, *_differing(result, list(alike.values())), *_same_images(result)])
        for protocol, alike in cases.items()
        for key, result in alike.items()
    }


def _differing(result: Measured, alike: Sequence[Measured]) -> Iterator[str]:
    for place, (name, which) in enumerate(result.case):
        others = [other.case[place] for other in alike if other.case[place][1] != which]
        if others:
            yield name if name not in (other for other, _ in others) else f"{name} ({which[:8]})"


def _same_images(result: Measured) -> list[str]:
    return ["on the images it learned from"] if result.same_images else []


def _read(run: Path) -> Iterator[tuple[Path, int | None, list[Measured] | None]]:
    """(file, line, results), older ones first; no line where the whole file is one, no results where it is damaged."""
    history = run / "evaluations.jsonl"
    lines = history.read_text(errors="replace").splitlines() if history.exists() else []
    for number, line in enumerate(lines, 1):
        if line:
            yield history, number, _evaluation(line)
    for path in sorted(run.glob("eval-*.json")):
        yield path, None, _evaluation(path.read_text(errors="replace"))


def _evaluation(text: str) -> list[Measured] | None:
    """An evaluation's result, and that of the best checkpoint, measured beside by the same protocol."""
    try:
        evaluation = json.loads(text)
        results = [_measured(evaluation, evaluation, evaluation.get("step"))]
        if evaluation.get("best"):
            results.append(_measured(evaluation["best"], evaluation, evaluation.get("best_step")))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return results


def _measured(row: dict[str, Any], evaluation: dict[str, Any], step: int | None) -> Measured:
    id, size = str(row["protocol"]["id"]), evaluation.get("image_size")
    protocol = protocol_of(id)
    values = {name: float(value) for name, value in row.items() if protocol.metric_title(name)}
    bounds = {name: pair for name, pair in row.get("interval", {}).items() if name in values}
    intervals = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
    (data, queries), (learned, bank) = (_images(evaluation.get(name, {})) for name in ("val_data", "data"))
    seeds = ""
    if protocol.depends_on_seed(id):
        seeds = ",".join(str(each["seed"]) for each in row.get("seeds", [])) or str(evaluation.get("seed"))
    same_images = bool(bank) and bank == queries and not protocol.leaves_query_out
    case = ((data, queries), (f"from {learned}", bank), (f"{size} px", str(size)), (f"seed {seeds}", seeds))
    return Measured(id, values, intervals, step, evaluation.get("val_data", {}).get("number"), data, same_images, case)


def _images(data: dict[str, Any]) -> tuple[str, str]:
    """The name of a data set's file, and which images these are, as far as the evaluation says."""
    name = Path(str(data.get("path", ""))).stem
    return name, str(data.get("checksum") or name)
