"""The table of a sweep that measured methods as their authors' tables were, beside the published figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def reproduction_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the cells: one row a method, in the order of the sweep.

    Args:
        result: what the sweep.json of `tools.sweep --published` holds.
    """
    yield [
        "method", "recipe", "steps", "kNN %", "published", "difference", "linear %, last epoch", "best epoch %",
        "published", "difference", "probe",
    ]  # fmt: skip
    yield ["---", "---", *["---:"] * 8, "---"]
    for row in result["rows"]:
        steps = f"{row['steps']:,}" if row["steps"] == row["of_steps"] else f"{row['steps']:,} of {row['of_steps']:,}"
        yield [
            row["method"], row["recipe"], steps,
            f"{row['knn']:.2f}", *_beside(row, "knn"),
            f"{row['linear']:.2f}", f"{row['linear_best_epoch']:.2f}", *_beside(row, "linear"),
            f"`{row['linear_protocol']}`",
        ]  # fmt: skip


def _beside(row: dict[str, Any], name: str) -> list[str]:
    """Return the published figure and the difference from it; empty cells if there is none."""
    difference = row.get("difference", {}).get(name)
    return ["", ""] if difference is None else [f"{row['published'][name]:.2f}", f"{difference:+.2f}"]
