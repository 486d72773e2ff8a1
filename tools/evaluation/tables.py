"""The tables that eval.py prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.evaluation.protocols import Protocol, RetrieveProtocol
from pipelines import Dataset
from pipelines.printable import printable

_TITLES = {"top1": "top-1 %", "top5": "top-5 %", "map": "mAP %"}


def show(rows: Mapping[str, Mapping[str, Any]], protocol: Protocol, queries: Dataset, console: Console) -> None:
    """A row for every network: its figures, and how far the first one can be trusted."""
    number = int((queries.labels >= 0).sum())
    table = Table(title=f"{protocol.id}, {number:,} images of {len(queries.classes)} classes")
    names = (
        [*(f"recall@{k}" for k in protocol.k), "map"] if isinstance(protocol, RetrieveProtocol) else ["top1", "top5"]
    )
    table.add_column("encoder")
    for name in names:
        table.add_column(_TITLES.get(name, f"{name} %"), justify="right")
    first = next(iter(rows.values()))
    table.add_column(f"{_TITLES.get(names[0], f'{names[0]} %')} within", justify="right")
    for name, row in rows.items():
        low, high = row["interval"][names[0]]
        spread = f"{row[names[0]]:.2f} ± {row['std'][names[0]]:.2f}, " if "std" in row else ""
        table.add_row(name, *(f"{row[figure]:.2f}" for figure in names), f"{spread}{low:.2f} to {high:.2f}")
    console.print(table)
    console.print(f"within: {first['interval']['kind']}", markup=False)
    if "rates" in first:
        show_rates(first, console)


def show_rates(row: Mapping[str, Any], console: Console) -> None:
    """Every rate of a sweep, and which one the held-out labels chose."""
    table = Table(title="learning rates; the one marked was chosen by the held-out labels")
    for column in ("lr", "held-out top-1 %", "top-1 %", "top-5 %"):
        table.add_column(column, justify="right")
    for rate in row["rates"]:
        mark = "* " if rate["lr"] == row["lr"] else ""
        figures = (rate.get(name) for name in ("held_out_top1", "top1", "top5"))
        table.add_row(f"{mark}{rate['lr']:g}", *("diverged" if value is None else f"{value:.2f}" for value in figures))
    console.print(table)


def show_classes(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A row for every class."""
    table = Table(title="by class")
    names = [name for name in rows[0] if name not in ("class", "images")]
    for column in ("class", "images", *(_TITLES.get(name, f"{name} %") for name in names)):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in rows:
        figures = ("" if row[name] is None else f"{row[name]:.2f}" for name in names)
        table.add_row(escape(printable(row["class"])), f"{row['images']:,}", *figures)
    console.print(table)
