"""Measures this machine: ours beside named alternatives, taking turns in one run.

    python -m tools.benchmark [NAME|all] [--json FILE]

Each benchmark is a file of `tools/benchmarks/` with a function `cases`; its docstring says what is compared.
"""

from __future__ import annotations

import os

from tools.command_line import Failure, OneLineParser, guarded_main

# Must be set before torch is imported. As in train.py: OpenMP threads that spin would starve the loader's threads.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from models.distributed import world
from pipelines.threads import usable_cores
from tools.benchmarks.measure import Settings, load_average
from tools.benchmarks.table import show
from tools.run.environment import machine, versions

#: Packages that are measured beside ours; their versions are recorded with the results.
COMPARED = ("faiss-cpu", "kornia", "pillow", "scikit-learn", "torchvision")
NAMES = (
    "loader",
    "conversion",
    "augment",
    "views",
    "hotpath",
    "selection",
    "search",
    "step",
    "evaluation",
    "monitors",
    "checkpoint",
)


def main(arguments: list[str] | None = None) -> int:
    return guarded_main("tools.benchmark", lambda: measure(arguments))


def measure(arguments: list[str] | None) -> None:
    """Run the benchmarks that the command line names; print each case, and write it if --json is given."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():  # started by torchrun
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    settings = Settings(options.repeats, options.threads, options.device, options.data, options.sizes)
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(*COMPARED),
        "device": options.device,
        "threads": options.threads,
        "repeats": options.repeats,
        "load_average": load_average(),
        "benchmarks": {},
    }
    for name in NAMES if options.what == "all" else (options.what,):
        benchmark = importlib.import_module(f"tools.benchmarks.{name}")
        rows = result["benchmarks"][name] = []
        for case in benchmark.cases(settings):
            rows.append(case.row())
            if world()[0] != 0:
                continue  # only the first process prints and writes
            show(name, rows[-1], Console())
            if options.json:  # after each case, so that a later failure does not lose what has been measured
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result, indent=2) + "\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "what", nargs="?", default="all", choices=[*NAMES, "all"], help="the benchmark to run (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the file to write the results to")
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="the number of runs of each contender, of which the median is reported (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="the number of threads a contender may use (default: all cores, here %(default)s)",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default=device, help="the device to measure (default here: %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="a converted data set to measure on (default: generated images)"
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=(50_000,),
        metavar="N,N,...",
        help="the numbers of samples of selection, search and evaluation (default: 50000)",
    )
    options = parser.parse_args(arguments)
    if min(options.repeats, options.threads, *options.sizes) < 1:
        raise Failure("--repeats, --threads and --sizes must be at least 1")
    return options


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


_sizes.__name__ = "list of int"  # what argparse calls it in an error message


if __name__ == "__main__":
    sys.exit(main())
