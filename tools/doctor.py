"""Says what is installed and works, which stage limits training on your data, and how to fix what is wrong.

    python -m tools.doctor                                                        # the installation
    python -m tools.doctor --data data/photos.beton --verify                      # every image against its checksum
    python -m tools.doctor --data data/photos.beton -- --method clim --width 64   # 30 seconds of measuring each stage

Options after `--` are those of train.py, so that the doctor measures exactly what you are going to train.
"""

from __future__ import annotations

import os

from tools.diagnosis.checkout import require_own_packages

if __name__ == "__main__":
    require_own_packages("tools.doctor")  # the imports below would fail with a traceback

from tools.command_line import guarded_main

# Must be set before torch is imported. As in train.py: OpenMP threads that spin would starve the loader's threads.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models import build, resolve
from models.methods.recipes import recipe_for
from pipelines import open_dataset
from pipelines.compiled import compile_hot_path
from pipelines.formats.card import DatasetError
from pipelines.printable import printable
from tools.benchmarks.measure import NOISY
from tools.command_line import Failure, OneLineParser, own_and_passed_on
from tools.diagnosis.bottleneck import InUse, Verdict, verdict
from tools.diagnosis.installation import Check, channels, checks, file_cache
from tools.diagnosis.stage_speeds import Speeds, measure_stages
from tools.run.accelerator import use_threads, why_not_recorded
from tools.run.options import parse
from tools.run.recordings import CudaGraphs

_COLOURS = {"ok": "green", "slow": "yellow", "missing": "red"}


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.doctor", lambda: diagnose(arguments))


def diagnose(arguments: Sequence[str] | None) -> int:
    """Check the installation and, with --data, the data set and the speed of each stage; return the exit code."""
    own, passed_on = own_and_passed_on(arguments)
    options, console = parse_own(own), Console()
    found = list(checks())
    if options.data and options.data.exists():
        found += [file_cache(options.data), *channels_of(options.data)]
    show(found, console)
    if not 0 < options.seconds < float("inf"):
        raise Failure(f"--seconds is {options.seconds:g}; give more than 0")
    if options.verify and options.data is None:
        raise Failure("--verify needs --data FILE")
    if options.verify:
        dataset = open_dataset(options.data, check="full")
        line = f"all {dataset.number:,} images of {printable(str(dataset.path))} match the checksums in its card"
        console.print(line, highlight=False, markup=False)
    if options.data is not None:
        speeds, limit, note = examine(options.data, passed_on, options.seconds)
        report(speeds, limit, note, console)
    return int(any(check.state == "missing" for check in found))


def channels_of(path: Path) -> list[Check]:
    """Check the channels of a data set; one that cannot be opened is reported later."""
    try:
        return [channels(open_dataset(path, check="none"))]
    except DatasetError:
        return []


def parse_own(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="a converted data set to measure the speed on")
    parser.add_argument(
        "--seconds",
        type=float,
        default=30,
        metavar="X",
        help="the duration of the measurement of all stages together (default: %(default)s)",
    )
    parser.add_argument("--verify", action="store_true", help="first compare every image of --data with its checksum")
    return parser.parse_args(arguments)


def examine(data: Path, train_options: Sequence[str], seconds: float) -> tuple[Speeds, Verdict, str]:
    """Measure the stages of the training that these options of train.py ask for; the method is CLIM by default.

    Returns:
        The speed of each stage, which one limits, and the loader's note, which says what it chose.

    Raises:
        Failure, ValueError: options or data cannot be used.
    """
    default = [] if "--method" in train_options else ["--method", "clim"]
    options, given_values = parse(["--data", str(data), *default, *train_options])
    dataset = open_dataset(data)
    name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
    recipe = resolve(options.method, name, **given_values)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = use_threads(options.threads)
    compile_hot_path(options.compile)
    method = build(recipe.method, recipe)
    recorder = None if why_not_recorded(options, device, 1) else CudaGraphs()
    speeds, note = measure_stages(
        method,
        recipe,
        dataset,
        seconds,
        device,
        options.precision,
        options.compile and device.type == "cuda",
        recorder,
        loader=options.loader,
        threads=threads,
    )
    loader = note.split()[1].rstrip(":,")  # the note starts with "loader NAME"
    used = InUse(device, loader, options.precision, options.compile, threads)
    return speeds, verdict(speeds, dataset, method.views, used), note


def show(found: Sequence[Check], console: Console) -> None:
    """Print the checks of the installation as a table."""
    table = Table(title="installation", title_justify="left")
    for column in ("", "found", "fix with"):
        table.add_column(column)
    for check in found:
        colour = _COLOURS[check.state]
        table.add_row(Text(check.name, colour), Text(printable(check.found)), Text(check.remedy))
    console.print(table)


def report(speeds: Speeds, limit: Verdict, note: str, console: Console) -> None:
    """Print the speed of each stage with its spread, and which stage limits."""
    table = Table(title="samples/s of each stage (medians)", title_justify="left")
    table.add_column("stage")
    table.add_column("samples/s", justify="right")
    table.add_column("spread", justify="right")
    for name, stage in (
        ("cut", "decode and crop"),
        ("loaded", "complete loader"),
        ("trained", "step on a ready batch"),
        ("together", "training from the loader"),
    ):
        spread = speeds.spread[name]
        noisy = " (noisy)" if spread > NOISY else ""
        table.add_row(stage, f"{getattr(speeds, name):,.0f}", f"{spread:.0%}{noisy}")
    console.print(table)
    text = f"[bold]limit: {escape(limit.stage)}[/] ({escape(limit.reason)})\nto fix: {escape(limit.remedy)}"
    console.print(f"{escape(note)}\n{text}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
