"""Compares several runs in one table: what differs in their recipes, what they cost, and what every protocol measured.

    python -m tools.report compare runs/clim-photos runs/moco-photos --markdown runs/table.md

The table has a row for each fact and a column for each run, so that long protocol ids stay readable.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.storage.atomic_files import replace_file
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser
from tools.markdown import escaped, table
from tools.run.evaluations import Measured, damaged_lines, latest, results_of, titles
from tools.run.record import read_run

#: The rows of the table: for each fact one value per run, in the order of the runs; None if a run has no value.
Facts = dict[str, list[Any]]


def compare_runs(arguments: Sequence[str] | None) -> None:
    """Print the table of several runs, and write it to the files that the options name."""
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
    parser = OneLineParser(
        prog="tools.report compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run of train.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file for the table as JSON (default: none)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="a file for it as Markdown (default: none)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


def compare(runs: Sequence[Path]) -> Facts:
    """Return the rows of the table, in order.

    Of recipe, data and machine only those values are listed that differ between runs. An unfinished run is marked as
    such, with the step and the number of images that it logged last.

    Raises:
        Failure: a folder is not a run, or a file is damaged.
    """
    records = [read_run(run) for run in runs]
    steps = [record.summary.get("step", record.last("step")) for record in records]
    return {
        "method": [record.config["method"] for record in records],
        **differing([_settings(record.config) for record in records]),
        **({} if all(record.summary for record in records) else {"state": [record.state for record in records]}),
        "step": steps,
        "images seen": [record.summary.get("samples_seen", record.last("samples_seen")) for record in records],
        "seconds": [record.summary.get("seconds") for record in records],
        "images/s (median)": [_median(record.series("samples_per_s")[1]) for record in records],
        "final loss": [record.last("loss") for record in records],
        **measured([latest(results_of(run)) for run in runs], steps),
    }


def differing(settings: Sequence[dict[str, Any]]) -> Facts:
    """Return the settings that differ between any two of the runs that have them."""
    names = dict.fromkeys(name for one in settings for name in one)
    rows = {name: [one.get(name) for one in settings] for name in names}
    return {name: values for name, values in rows.items() if not _all_equal([v for v in values if v is not None])}


def measured(results: Sequence[list[Measured]], last_steps: Sequence[int | None]) -> Facts:
    """Return a row for every metric of every protocol.

    A protocol that was applied in several ways (to other images, with labels of another seed, ...) has rows for each
    of them. If a run has been trained further since it was measured, a row says at which step it was measured.

    Args:
        results: the results of each run.
        last_steps: the last step of each run.
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
    """Return the names of the folders; the full path for folders of the same name."""
    names = [run.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def show(names: Sequence[str], facts: Facts, console: Console) -> None:
    """Print the table."""
    grid = Table(title=f"{len(names)} runs", title_justify="left")
    for name in ("", *names):
        grid.add_column(Text(printable(name)), justify="right" if name else "left", overflow="fold")
    for fact, values in facts.items():
        grid.add_row(Text(printable(fact)), *(Text(printable(as_text(value))) for value in values))
    console.print(grid)


def markdown(names: Sequence[str], facts: Facts) -> str:
    """Return the table as Markdown."""
    rows = ([escaped(fact), *(escaped(as_text(value)) for value in values)] for fact, values in facts.items())
    return table(["", *map(escaped, names)], rows)


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all.

    Raises:
        Failure: it cannot be written; a file that existed before is unchanged.
    """
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise Failure(
            f"{path} cannot be written: {error.strerror}; give another file, or free some disk space"
        ) from None


def as_text(value: Any) -> str:
    """Return a value as it is shown."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(as_text, value)) if isinstance(value, list) else str(value)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return what determines a run's result and cost: recipe, data, options and machine."""
    data, options, machine = config["data"], config["options"], config.get("machine", {})
    return {
        "recipe": config["recipe_name"],
        **{name: _unwrapped(value) for name, value in config["recipe"].items()},
        "data": f"{Path(str(data.get('path'))).stem} ({str(data.get('checksum'))[:8]})",
        **{name: options.get(name) for name in ("seed", "precision", "accumulate", "max_steps", "loader")},
        "processes": config.get("world_size"),
        "machine": machine.get("gpu") or machine.get("cpu"),
        "torch": config.get("versions", {}).get("torch"),
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _unwrapped(value: Any) -> Any:
    """Unwrap one-element lists, so that settings per view and settings for all views compare equal."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
