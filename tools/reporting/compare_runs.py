"""Several runs in one table: what differs in their recipes, what they cost, and what every protocol measured.

    python -m tools.report compare runs/clim-photos runs/moco-photos --markdown runs/table.md

A row for each fact and a column for each run, so that long protocol ids and many differences stay readable.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser
from tools.markdown import escaped, table
from tools.run.evaluations import Measured, damaged_lines, latest, results_of, titles
from tools.run.record import read_run

Facts = dict[str, list[Any]]  # a value of each run, in their order; None where a run has none


def compare_runs(arguments: Sequence[str] | None) -> None:
    """Prints the table of several runs, and writes it to the files that the options name."""
    options = parse(arguments)
    for path in (options.json, options.markdown):
        if path is not None and path.exists() and not options.force:
            raise Failure(f"{path} exists and is left as it is; --force replaces it")
    names, facts = unique_names(options.runs), compare(options.runs)
    if options.json is not None:
        write(options.json, json.dumps({"runs": names, "facts": facts}, indent=2) + "\n")
    if options.markdown is not None:
        write(options.markdown, markdown(names, facts))
    show(names, facts, Console())
    for line in (line for run in options.runs for line in damaged_lines(run)):
        print(f"tools.report compare: {printable(line)}", file=sys.stderr)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="tools.report compare", description="One table of several runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write it as a Markdown table")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


def compare(runs: Sequence[Path]) -> Facts:
    """The table's rows: facts in order, each with a value of every run.

    Of recipes, data and machines only what differs; what a run or its method does not have is None. A run that is not
    finished is marked so, and has the step and the images that it logged last.

    Raises:
        Failure: a folder is no run, or a file is damaged.
    """
    records = [read_run(run) for run in runs]
    steps = [record.summary.get("step", record.last("step")) for record in records]
    return {
        "method": [record.config["method"] for record in records],
        **differing([_asked(record.config) for record in records]),
        **({} if all(record.summary for record in records) else {"state": [record.state for record in records]}),
        "step": steps,
        "images seen": [record.summary.get("samples_seen", record.last("samples_seen")) for record in records],
        "seconds": [record.summary.get("seconds") for record in records],
        "images/s (median)": [_median(record.series("samples_per_s")[1]) for record in records],
        "final loss": [record.last("loss") for record in records],
        **measured([latest(results_of(run)) for run in runs], steps),
    }


def differing(asked: Sequence[dict[str, Any]]) -> Facts:
    """Of several tables, the entries that differ between any two that have them."""
    names = dict.fromkeys(name for table in asked for name in table)
    rows = {name: [table.get(name) for table in asked] for name in names}
    return {name: values for name, values in rows.items() if not _all_equal([v for v in values if v is not None])}


def measured(results: Sequence[list[Measured]], last_steps: Sequence[int | None]) -> Facts:
    """A row for every measure of every protocol; where a run has gone on since it was measured, that is told.

    A protocol that was applied in several cases (other images, labels of another seed, ...) has rows for each.
    """
    names = titles(result for found in results for result in found)
    rows: Facts = {}
    for key, title in sorted(names.items()):
        here = [next((result for result in found if result.key == key), None) for found in results]
        for name in dict.fromkeys(name for result in here if result for name in result.values):
            rows[f"{title}: {name}"] = [result.values.get(name) if result else None for result in here]
        steps = [result.step if result else None for result in here]
        if any(step not in (None, last) for step, last in zip(steps, last_steps, strict=True)):
            rows[f"{title}: at step"] = steps
    return rows


def unique_names(runs: Sequence[Path]) -> list[str]:
    """The folders' names; the whole path of those that are called alike."""
    names = [run.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def show(names: Sequence[str], facts: Facts, console: Console) -> None:
    """Prints the table."""
    grid = Table(title=f"{len(names)} runs", title_justify="left")
    for name in ("", *names):
        grid.add_column(Text(printable(name)), justify="right" if name else "left", overflow="fold")
    for fact, values in facts.items():
        grid.add_row(Text(printable(fact)), *(Text(printable(as_text(value))) for value in values))
    console.print(grid)


def markdown(names: Sequence[str], facts: Facts) -> str:
    """The table as Markdown."""
    rows = ([escaped(fact), *(escaped(as_text(value)) for value in values)] for fact, values in facts.items())
    return table(["", *map(escaped, names)], rows)


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        Failure: it cannot be written; what was there is as before.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise Failure(f"{path} cannot be written: {error.strerror}; give another, or free some space") from None


def as_text(value: Any) -> str:
    """A value as people write it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(as_text, value)) if isinstance(value, list) else str(value)


def _asked(config: dict[str, Any]) -> dict[str, Any]:
    """What a run was asked for, and where it ran."""
    data, options, machine = config["data"], config["options"], config.get("machine", {})
    return {
        "recipe": config["recipe_name"],
        **{name: _alone(value) for name, value in config["recipe"].items()},
        "data": f"{Path(str(data.get('path'))).stem} ({str(data.get('checksum'))[:8]})",
        **{name: options.get(name) for name in ("seed", "precision", "accumulate", "max_steps", "loader")},
        "processes": config.get("world_size"), "machine": machine.get("gpu") or machine.get("cpu"),
        "torch": config.get("versions", {}).get("torch"),
    }  # fmt: skip


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _alone(value: Any) -> Any:
    """A list of one value as that value: methods differ in which of their views a value is for."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
