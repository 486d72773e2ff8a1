"""A case of a benchmark on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(benchmark: str, row: dict[str, Any], console: Console) -> None:
    """Print a case as a table, and its other facts below it."""
    if "contenders" in row:
        table = Table(title=f"{benchmark}: {row['case']}", title_justify="left")
        for column in ("contender", row["unit"], "spread", "ours is better", "peak MiB"):
            table.add_column(column, justify="left" if column == "contender" else "right")
        for name, found in row["contenders"].items():
            spread = f"{found['spread']:.0%}{' noisy' if found['noisy'] else ''}"
            peak = f"{found['peak_mib']:,.0f}" if "peak_mib" in found else ""
            table.add_row(name, f"{found['median']:,.1f}", spread, f"{found['ours_is_better']:.2f}x", peak)
        console.print(table)
    for name, value in row.items():
        if name not in ("case", "unit", "contenders"):
            console.print(f"  {name.replace('_', ' ')}: {value}", highlight=False, markup=False)
