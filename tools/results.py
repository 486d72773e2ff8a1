"""Draws the tables in the project's Markdown files from the measurements in tools/results/.

    python -m tools.results            # redraws every marked table of every Markdown file
    python -m tools.results --check    # changes nothing; exit code 1 if a table is out of date

A table stands between the lines `<!-- drawn: KIND FILE -->` and `<!-- end -->` and is never edited by hand. FILE is
relative to the folder of the Markdown file, as in its links. KIND says what the JSON file holds and how it is drawn:

    sweep          the methods of one `tools.sweep`
    seeds          several sweeps of one budget that differ in their seed only, as FILE,FILE,...
    moved          the same number of sweeps before a change and after it, as BEFORE,...,AFTER,..., those of one seed in
                   the same places
    ratios         single rows of benchmarks, which the file lists; their files lie beside it
    reproduction   the methods of one `tools.sweep --published`, beside the published figures
    recipes        published hyper-parameters, beside those of the recipes
    documents      the documents that they are from
    NAME           the benchmark NAME, as written by `tools.benchmark --json`
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.command_line import OneLineParser, guarded_main
from tools.reporting.recipe_table import document_rows, recipe_rows
from tools.reporting.reproduction_table import reproduction_rows
from tools.reporting.sweep_tables import moved_rows, seed_rows, sweep_rows

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = ("models", "pipelines", "tests", "tools")  # searched with all their subfolders, beside the root itself
_OPENING = re.compile(r"^<!-- drawn:", re.MULTILINE)
_MARKED = re.compile(r"^(<!-- drawn: (\S+) (\S+) -->\n).*?^(<!-- end -->)", re.DOTALL | re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.results", lambda: draw(arguments))


def draw(arguments: Sequence[str] | None) -> int:
    """Redraw or check the tables that the command line asks for; return the exit code."""
    parser = OneLineParser(
        prog="tools.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a table is out of date")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="the only Markdown file to draw into (default: all of the project)"
    )
    options = parser.parse_args(arguments)
    outdated = False
    for path in [options.readme] if options.readme else marked_files(ROOT):
        text = path.read_text()
        drawn = draw_all(text, path)
        if options.check and text != drawn:
            outdated = True
            print(f"{path}: a table is out of date; run: python -m tools.results", file=sys.stderr)
        elif text != drawn:
            path.write_text(drawn)
    return int(outdated)


def marked_files(root: Path) -> list[Path]:
    """Return the project's Markdown files that hold at least one marked table."""
    files = [*root.glob("*.md"), *(path for folder in _FOLDERS for path in (root / folder).rglob("*.md"))]
    return sorted(path for path in files if _OPENING.search(path.read_text()))


def draw_all(text: str, path: Path) -> str:
    """Return the text of a Markdown file with every marked table redrawn.

    Args:
        text: the current text.
        path: the Markdown file; the files that the marks name are relative to its folder.

    Raises:
        ValueError: a mark is incomplete, or its file is missing, is not JSON or holds no such table.
    """

    def redraw(mark: re.Match[str]) -> str:
        opening, kind, names, closing = mark.groups()
        try:
            if kind in ("recipes", "documents"):
                draw_rows = recipe_rows if kind == "recipes" else document_rows
                return opening + _markdown(draw_rows(path.parent / names)) + closing
            results = [json.loads((path.parent / name).read_text()) for name in names.split(",")]
            match kind:
                case "seeds":
                    rows = seed_rows(results)
                case "moved":
                    rows = moved_rows(results)
                case "sweep":
                    rows = sweep_rows(results[0])
                case "reproduction":
                    rows = reproduction_rows(results[0])
                case "ratios":
                    rows = ratio_rows(results[0], (path.parent / names).parent)
                case _:
                    rows = benchmark_rows(results[0], kind)
            return opening + _markdown(rows) + closing
        except OSError as error:
            raise ValueError(f"{path}: there is no {error.filename}, from which a table is drawn") from None
        except (LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: {names} holds no table '{kind}' ({reason})") from None

    drawn, tables = _MARKED.subn(redraw, text)
    marks = len(_OPENING.findall(text))
    if tables != marks:
        raise ValueError(f"{path}: {marks} marks, of which {tables} read `<!-- drawn: KIND FILE -->` and have an end")
    return drawn


def _markdown(rows: Iterator[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def benchmark_rows(result: dict[str, Any], name: str) -> Iterator[list[str]]:
    """Yield the cells of a benchmark: one row for each contender of each case."""
    cases = result["benchmarks"][name]
    memory = any("peak_mib" in found for case in cases for found in case["contenders"].values())
    yield ["case", "contender", "median", "ours is better", "spread", *(["peak MiB"] if memory else [])]
    yield ["---", "---", *["---:"] * (3 + memory)]
    for case in cases:
        for number, (contender, found) in enumerate(case["contenders"].items()):
            spread = f"{found['spread']:.0%}{' (noisy)' if found['noisy'] else ''}"
            peak = [f"{max(0, found['peak_mib']):,.0f}" if "peak_mib" in found else ""] if memory else []
            ratio = f"{found['ours_is_better']:.2f}x" if number else ""
            title = case["case"] if number == 0 else ""
            yield [title, contender, f"{_short(found['median'])} {case['unit']}", ratio, spread, *peak]


def ratio_rows(chosen: dict[str, Any], folder: Path) -> Iterator[list[str]]:
    """Yield how many times as fast ours is as another contender, for rows of several benchmarks.

    Args:
        chosen: "rows", each with a title ("stage", "beside") and what it is taken from ("file", "benchmark", "case" or
            by default the first one, and "contender").
        folder: holds the files.
    """
    yield ["stage", "beside", "ours is faster"]
    yield ["---", "---", "---:"]
    for row in chosen["rows"]:
        cases = json.loads((folder / row["file"]).read_text())["benchmarks"][row["benchmark"]]
        named = {case["case"]: case for case in reversed(cases)}
        case = named[row["case"]] if "case" in row else cases[0]
        yield [row["stage"], row["beside"], f"{case['contenders'][row['contender']]['ours_is_better']:.2f}x"]


def _short(value: float) -> str:
    """Return a number with three significant digits, or all its integer digits if it has more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
