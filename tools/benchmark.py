"""Measures this machine: ours beside named alternatives, in one run, taking turns.

    python -m tools.benchmark [NAME|all] [--json FILE]

Each benchmark is a file of `tools/benchmarks/` with a function `cases`; its docstring says what is compared.
"""

from __future__ import annotations

import os

from tools.command_line import Failure, OneLineParser, guarded_main

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")  # as train.py, for the same reason

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from models.distributed import world
from pipelines.threads import usable_cores
from tools.benchmarks.measure import Settings, load_average
from tools.run.environment import machine, versions

COMPARED = (
    "faiss-cpu",
    "kornia",
    "pillow",
    "scikit-learn",
    "torchvision",
)  # packages that benchmarks measure beside ours
NAMES = (
    "loader", "conversion", "augment", "views", "hotpath", "selection", "search", "step", "evaluation", "monitors",
    "checkpoint",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    return guarded_main("tools.benchmark", lambda: measure(arguments))


def measure(arguments: list[str] | None) -> None:
    parser = OneLineParser(prog="tools.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="all", choices=[*NAMES, "all"], help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender; medians count (default: 5)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="default: all cores")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path, metavar="FILE", help="a converted data set to measure on")
    parser.add_argument("--sizes", type=_sizes, default=(50_000,), metavar="N,N,...", help="samples (default: 50000)")
    options = parser.parse_args(arguments)
    if min(options.repeats, options.threads, *options.sizes) < 1:
        raise Failure("--repeats, --threads and --sizes must be at least 1")
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():  # started by torchrun
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    settings = Settings(options.repeats, options.threads, options.device, options.data, options.sizes)
    result: dict[str, Any] = {
        "machine": machine(), "versions": versions(*COMPARED), "device": options.device, "threads": options.threads,
        "repeats": options.repeats, "load_average": load_average(), "benchmarks": {},
    }  # fmt: skip
    for name in NAMES if options.what == "all" else (options.what,):
        benchmark = importlib.import_module(f"tools.benchmarks.{name}")
        rows = result["benchmarks"][name] = []
        for case in benchmark.cases(settings):
            rows.append(case.row())
            if world()[0]:
                continue  # the first process speaks and writes
            show(name, rows[-1], Console())
            if options.json:  # after each case: what is measured is not lost with a later one
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result, indent=2) + "\n")


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def show(benchmark: str, row: dict[str, Any], console: Console) -> None:
    """Prints a case as a table."""
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
            console.print(f"  {name.replace('_', ' ')}: {value}")


if __name__ == "__main__":
    sys.exit(main())
