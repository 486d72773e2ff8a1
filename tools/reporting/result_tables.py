"""The first section of a report: a run's results, each with its protocol, and the values of its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.reporting.page import Section, Table
from tools.run.evaluations import damaged_lines, latest, results_of, titles
from tools.run.record import RunRecord


def number_sections(record: RunRecord) -> list[Section]:
    """Return the section with facts about the run, its results, and its recipe, which is folded away."""
    data, summary = record.config["data"], record.summary
    number, classes = data.get("number"), data.get("classes") or ()
    rows = [
        ("images", f"{number:,} for training, {len(classes)} classes" if classes else f"{number:,}, unlabelled"),
        ("steps", f"{record.rows[-1]['step']:,}" if summary else record.state),
        ("images seen", f"{record.rows[-1].get('samples_seen', 0):,}"),
    ]
    if summary:
        rows.append(("training time", f"{summary.get('seconds', 0):,.0f} s on {_machine(record.config)}"))
    if (loss := record.last("loss")) is not None:
        rows.append(("last loss", f"{loss:.4f}"))
    results = Table(("result", "value", "protocol", "95 % interval", "images", "step"), tuple(_results(record)))
    recipe, sources = record.config["recipe"], record.config.get("sources", {})
    settings = tuple((name, _text(value), str(sources.get(name, ""))) for name, value in recipe.items())
    tables = (
        Table(("", ""), tuple(rows)),
        *((results,) if results.rows else ()),
        Table(("setting", "value", "source"), settings, f"All {len(settings)} values of the recipe"),
    )
    return [Section("The run", ". ".join(damaged_lines(record.path)), tables=tables)]


def _results(record: RunRecord) -> Iterator[tuple[str, ...]]:
    """Yield a row for each accuracy of the kNN monitor and of eval.py."""
    steps, values = record.series("knn_top1")
    if values:
        protocol = str(record.last("knn_protocol"))
        if steps[0] == 0 and len(steps) > 1:
            yield "kNN top-1 before training", f"{values[0]:.2f} %", protocol, "", "", "0"
        yield f"kNN top-1 at step {steps[-1]:,}", f"{values[-1]:.2f} %", protocol, "", "", f"{steps[-1]:,}"
    results = latest(results_of(record.path))
    names = titles(results)
    for result in results:
        images = f"{result.images:,} of {result.data}" if result.images else result.data
        step = "" if result.step is None else f"{result.step:,}"
        for name, value in result.values.items():
            low_high = "{:.2f} to {:.2f}".format(*result.intervals[name]) if name in result.intervals else ""
            yield f"eval.py: {name}", f"{value:.2f} %", names[result.key], low_high, images, step


def _machine(config: dict[str, Any]) -> str:
    machine = config.get("machine", {})
    return str(machine.get("gpu") or f"{machine.get('cores')} cores, {machine.get('cpu')}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
