"""What is installed, what works, which stage limits training on your data, and what mends it.

    python -m tools.doctor                                                     # the installation
    python -m tools.doctor --data data/photos.beton --verify   # every image against its checksum
    python -m tools.doctor --data data/photos.beton -- --method clim --width 64   # and 30 seconds of each stage

What follows `--` are options of train.py, so that what is probed is what will be trained.
"""

from __future__ import annotations

import os

from tools.diagnosis.checkout import require_own_packages

if __name__ == "__main__":
    require_own_packages("tools.doctor")  # the imports below would fail with a traceback

from tools.command_line import guarded_main

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")  # as train.py, for the same reason

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
from models.training.precision import DTYPES
from pipelines import open_dataset
from pipelines.compiled import compile_hot_path
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser, own_and_passed_on
from tools.diagnosis.bottleneck import Speeds, Verdict, probe, verdict
from tools.diagnosis.installation import Check, checks, file_cache
from tools.run.accelerator import use_threads
from tools.run.options import parse

_COLOURS = {"ok": "green", "slow": "yellow", "missing": "red"}


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.doctor", lambda: diagnose(arguments))


def diagnose(arguments: Sequence[str] | None) -> int:
    own, passed_on = own_and_passed_on(arguments)
    parser = OneLineParser(prog="tools.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="a converted data set to probe")
    parser.add_argument("--seconds", type=float, default=30, help="of the probe, over all stages (default: 30)")
    parser.add_argument("--verify", action="store_true", help="compare every image of --data with its checksum first")
    console = Console()
    options = parser.parse_args(own)
    found = [*checks(), *([file_cache(options.data)] if options.data and options.data.exists() else [])]
    show(found, console)
    if not 0 < options.seconds < float("inf"):
        raise Failure(f"--seconds is {options.seconds:g}; give more than 0")
    if options.verify and options.data is None:
        raise Failure("--verify needs --data FILE")
    if options.verify:
        dataset = open_dataset(options.data, check="full")
        told = f"all {dataset.number:,} images of {printable(str(dataset.path))} are those of its card"
        console.print(told, highlight=False, markup=False)
    if options.data is not None:
        speeds, why, note = examine(options.data, passed_on, options.seconds)
        report(speeds, why, note, console)
    return int(any(check.state == "missing" for check in found))


def examine(data: Path, words: Sequence[str], seconds: float) -> tuple[Speeds, Verdict, str]:
    """Probes the method that these options of train.py would train; also says which loader was taken.

    Raises:
        Failure, ValueError: options or data that cannot be used.
    """
    default = [] if "--method" in words else ["--method", "clim"]
    options, overrides = parse(["--data", str(data), *default, *words])
    dataset = open_dataset(data)
    name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
    recipe = resolve(options.method, name, **overrides)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = use_threads(options.threads)
    compile_hot_path(options.compile)
    method = build(recipe.method, recipe)
    speeds, note = probe(
        method, dataset, recipe.training.batch_size, seconds, device,
        loader=options.loader, threads=threads, dtype=DTYPES[options.precision], compile=options.compile,
    )  # fmt: skip
    return speeds, verdict(speeds, dataset, method.views, device, note.split()[1].rstrip(":,")), note


def show(found: Sequence[Check], console: Console) -> None:
    """Prints the checks as a table."""
    table = Table(title="installation", title_justify="left")
    for column in ("", "found", "mend with"):
        table.add_column(column)
    for check in found:
        colour = _COLOURS[check.state]
        table.add_row(Text(check.name, colour), Text(printable(check.found)), Text(check.mend))
    console.print(table)


def report(speeds: Speeds, why: Verdict, note: str, console: Console) -> None:
    """Prints the stages, and the one that limits."""
    table = Table(title="samples/s of each stage", title_justify="left")
    table.add_column("stage")
    table.add_column("samples/s", justify="right")
    for stage, speed in (
        ("decode and crop", speeds.cut),
        ("whole loader", speeds.loaded),
        ("step, batch already there", speeds.trained),
        ("training from the loader", speeds.together),
    ):
        table.add_row(stage, f"{speed:,.0f}")
    console.print(table)
    limit = f"[bold]limit: {escape(why.stage)}[/] ({escape(why.why)})\nmend: {escape(why.mend)}"
    console.print(f"{escape(note)}\n{limit}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
