"""Draws the README's tables from the measurements in tools/results/.

    python -m tools.results            # rewrites the tables between their marks
    python -m tools.results --check    # says whether they are what the files hold

A table stands between `<!-- drawn: KIND FILE -->` and `<!-- end -->`. KIND is `sweep` for what tools.sweep wrote,
`seeds` for several such files of one budget and different seeds (FILE,FILE,...), or the name of a benchmark for what
`tools.benchmark --json` wrote. Nobody edits what is between the marks.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tools.command_line import OneLineParser, guarded_main

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"(<!-- drawn: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.results", lambda: draw(arguments))


def draw(arguments: Sequence[str] | None) -> int:
    parser = OneLineParser(prog="tools.results", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where a table is not up to date"
    )
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the file to draw into")
    options = parser.parse_args(arguments)
    text = options.readme.read_text()
    drawn = draw_all(text, options.readme.parent)
    if options.check:
        if text != drawn:
            print(
                f"{options.readme}: a table is not what its file holds; run: python -m tools.results", file=sys.stderr
            )
        return int(text != drawn)
    options.readme.write_text(drawn)
    return 0


def draw_all(text: str, folder: Path) -> str:
    """`text` with every marked table made anew.

    Raises:
        ValueError: a file is missing, is not JSON, or holds no such table.
    """

    def table(mark: re.Match[str]) -> str:
        kind, name = mark[2], mark[3]
        try:
            results = [json.loads((folder / part).read_text()) for part in name.split(",")]
            if kind == "seeds":
                rows = seed_rows(results)
            else:
                rows = sweep_rows(results[0]) if kind == "sweep" else benchmark_rows(results[0], kind)
            return mark[1] + "".join(f"| {' | '.join(row)} |\n" for row in rows) + mark[4]
        except OSError as error:
            raise ValueError(f"there is no {error.filename}, from which a table is to be drawn") from None
        except (KeyError, ValueError) as error:
            raise ValueError(f"{folder / name} holds no table '{kind}' ({type(error).__name__}: {error})") from None

    return MARKED.sub(table, text)


def sweep_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """Methods under one budget, the best kNN first."""
    rows = sorted(result["rows"], key=lambda row: -row["knn"])
    yield ["method", "kNN %", "linear %", "loss, first to last", "feature spread", "effective rank", "images seen"]
    yield ["---", *["---:"] * 6]
    for row in rows:
        yield [
            row["method"], f"**{row['knn']:.2f}**", f"{row['linear']:.2f}",
            f"{row['first_loss']:.3f} to {row['last_loss']:.3f}", f"{row['spread']:.2f}", f"{row['rank']:.1f}",
            f"{row['images_seen']:,}",
        ]  # fmt: skip
    for name, title in (("untrained", "*untrained*"), ("pixels", "*raw pixels*")):
        yield [title, *(f"{rows[0][f'{protocol}_{name}']:.2f}" for protocol in ("knn", "linear")), *[""] * 4]


def seed_rows(results: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Mean and standard deviation over the seeds of each method that every result has, the best kNN first.

    Raises:
        ValueError: the results differ in more than the seed.
    """
    budgets = [(result["data"], without_seed(result["options"]), result["own_options"]) for result in results]
    if any(budget != budgets[0] for budget in budgets):
        raise ValueError("the sweeps differ in more than --seed")
    found = [{row["method"]: row for row in result["rows"]} for result in results]
    yield ["method", "seeds", "kNN %", "linear %"]
    yield ["---", *["---:"] * 3]
    rows = []
    for method in set.intersection(*(set(rows) for rows in found)):
        columns = ([rows[method][name] for rows in found] for name in ("knn", "linear"))
        rows.append([method, str(len(found)), *(f"{mean(values):.2f} ± {stdev(values):.2f}" for values in columns)])
    yield from sorted(rows, key=lambda row: row[2], reverse=True)


def without_seed(options: Sequence[str]) -> list[str]:
    """Options of train.py but for `--seed N`."""
    place = list(options).index("--seed") if "--seed" in options else len(options)
    return [*options[:place], *options[place + 2 :]]


def benchmark_rows(result: dict[str, Any], name: str) -> Iterator[list[str]]:
    """Every contender of every case of a benchmark."""
    cases = result["benchmarks"][name]
    memory = any("peak_mib" in found for case in cases for found in case["contenders"].values())
    yield ["case", "contender", "median", "ours is better", "spread", *(["peak MiB"] if memory else [])]
    yield ["---", "---", *["---:"] * (3 + memory)]
    for case in cases:
        for number, (contender, found) in enumerate(case["contenders"].items()):
            spread = f"{found['spread']:.0%}{' (noisy)' if found['noisy'] else ''}"
            peak = [f"{max(0, found['peak_mib']):,.0f}" if "peak_mib" in found else ""] if memory else []
            ratio = f"{found['ours_is_better']:.2f}x" if number else ""
            first = case["case"] if number == 0 else ""
            yield [first, contender, f"{_short(found['median'])} {case['unit']}", ratio, spread, *peak]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
