"""A run's results and settings as tables; every accuracy with the protocol that measured it."""

from __future__ import annotations

from typing import Any

from tools.report_page import Section, Table
from tools.run_record import RunRecord

_NOT_RESULTS = {"step", "seed", "seconds", "classes", "image_size"}


def number_sections(record: RunRecord) -> list[Section]:
    """Results first, settings folded away."""
    data, summary = record.config["data"], record.summary
    number, classes = data.get("number"), data.get("classes") or ()
    rows = [
        ("images", f"{number:,} for training, {len(classes)} classes" if classes else f"{number:,}, unlabelled"),
        ("steps", f"{record.rows[-1]['step']:,}" + ("" if summary else " (not finished)")),
        ("images seen", f"{record.rows[-1].get('samples_seen', 0):,}"),
    ]
    if summary:
        rows.append(("training time", f"{summary.get('seconds', 0):,.0f} s on {_machine(record.config)}"))
    if (loss := record.last("loss")) is not None:
        rows.append(("last loss", f"{loss:.4f}"))
    results = Table(("result", "value", "protocol"), tuple(_results(record)))
    recipe, sources = record.config["recipe"], record.config.get("sources", {})
    settings = tuple((name, _text(value), str(sources.get(name, ""))) for name, value in recipe.items())
    return [
        Section(
            "The run", "", (), (
                Table(("", ""), tuple(rows)),
                *((results,) if results.rows else ()),
                Table(("setting", "value", "source"), settings, f"All {len(settings)} values of the recipe"),
            ),
        )
    ]  # fmt: skip


def _results(record: RunRecord) -> list[tuple[str, str, str]]:
    """Each accuracy of the monitor and of eval.py."""
    rows = []
    steps, values = record.series("knn_top1")
    if values:
        protocol = str(record.last("knn_protocol"))
        if steps[0] == 0 and len(steps) > 1:
            rows.append(("kNN top-1 before training", f"{values[0]:.2f} %", protocol))
        rows.append((f"kNN top-1 at step {steps[-1]:,}", f"{values[-1]:.2f} %", protocol))
    for name, result in record.evaluations.items():
        described = result.get("protocol")
        protocol = str(described.get("id") if isinstance(described, dict) else described)
        for key, value in result.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and key not in _NOT_RESULTS:
                unit = " %" if key.startswith("top") else ""
                rows.append((f"eval.py {name}: {key}", f"{value:,.2f}{unit}", protocol))
    return rows


def _machine(config: dict[str, Any]) -> str:
    machine = config.get("machine", {})
    return str(machine.get("gpu") or f"{machine.get('cores')} cores, {machine.get('cpu')}")


def _text(value: Any) -> str:
    return (
        ", ".join(map(_text, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
