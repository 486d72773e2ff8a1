"""The tables that eval.py prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.evaluation.protocol import Protocol
from pipelines import Dataset
from pipelines.printable import printable


def show(rows: Mapping[str, Mapping[str, Any]], protocol: Protocol, queries: Dataset, console: Console) -> None:
    """Print a row for every network: its metrics in percent, and the interval of the first metric."""
    first = next(iter(rows.values()))
    titles = metric_titles(first, type(protocol))
    main, main_title = next(iter(titles.items()))
    left_out = first.get("queries_left_out", 0)
    number = int((queries.labels >= 0).sum()) - left_out
    table = Table(title=f"{protocol.id}, {number:,} images of {len(queries.classes)} classes")
    table.add_column("encoder")
    for title in (*titles.values(), f"{main_title} within"):
        table.add_column(title, justify="right")
    for name, row in rows.items():
        low, high = row["interval"][main]
        spread = f"{row[main]:.2f} ± {row['std'][main]:.2f}, " if "std" in row else ""
        table.add_row(name, *(f"{row[metric]:.2f}" for metric in titles), f"{spread}{low:.2f} to {high:.2f}")
    console.print(table)
    console.print(f"within: {first['interval']['kind']}", markup=False)
    if left_out:
        console.print(f"left out: {left_out:,} queries whose class has no other image in the bank", markup=False)
    if detail := protocol.detail_table(first):
        table = Table(title=detail.title)
        for column in detail.columns:
            table.add_column(column, justify="right")
        for cells in detail.rows:
            table.add_row(*cells)
        console.print(table)


def show_classes(rows: Sequence[Mapping[str, Any]], protocol: type[Protocol], console: Console) -> None:
    """Print a row for every class: its number of images and its metrics in percent."""
    table = Table(title="by class")
    titles = metric_titles(rows[0], protocol)
    for column in ("class", "images", *titles.values()):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in rows:
        values = ("" if row[name] is None else f"{row[name]:.2f}" for name in titles)
        table.add_row(escape(printable(row["class"])), f"{row['images']:,}", *values)
    console.print(table)


def metric_titles(row: Mapping[str, Any], protocol: type[Protocol]) -> dict[str, str]:
    """Return the metrics that a row of a result holds, in its order, with the titles of their columns."""
    return {name: title for name in row if (title := protocol.metric_title(name))}
