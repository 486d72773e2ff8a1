"""Trains several methods under one budget, one after the other, evaluates them, and puts the results in one table.

    python -m tools.sweep --data data/cifar10.beton --val-data data/cifar10-test.beton --out runs/sweep \\
        --methods moco,clim,msvq -- --width 16 --max-steps 200

Options after `--` go to train.py for every method; `--set clim:start-epoch=0` adds an option for one method. Calling an
interrupted sweep again continues it: finished methods are skipped, an unfinished one resumes at the step where it
stopped. After the first epochs it says how long the rest takes.

The table and OUT/sweep.json hold, for each method, the accuracy of kNN and of a linear probe on the trained network, on
the untrained network and on raw pixels, and two signs of collapse: the spread of the features and their effective rank.
With `--published` every method is measured as its authors' tables were, beside the figures that they published.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from models.methods.registry import REGISTRY
from pipelines import open_dataset
from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on
from tools.run.environment import machine, versions
from tools.run.process_start import STOPPED, WATCHED
from tools.sweeping import evaluations
from tools.sweeping.programs import call
from tools.sweeping.table import describe, newest_state, show
from tools.sweeping.time_left import Budget, TimeLeft


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.sweep", lambda: sweep(arguments))


def sweep(arguments: Sequence[str] | None) -> None:
    """Train and evaluate every method, and write sweep.json after each of them."""
    own, passed_on = own_and_passed_on(arguments)
    options = parse(own)
    methods = options.methods.split(",")
    for watched in WATCHED:
        signal.signal(watched, _stop)
    for method in methods:
        if method not in REGISTRY:
            raise Failure(f"unknown method '{method}'; take one of {', '.join(sorted(REGISTRY))}")
    options_of = {method: own_options(method, options.set) for method in methods}
    settings = {
        "data": [describe_data(options.data), describe_data(options.val_data)],
        "options": passed_on,
        "own_options": options.set,
    }
    budget, rows = Budget(options.minutes), []
    for done, method in enumerate(methods):
        later = len(methods) - done - 1
        whole = train(method, options, [*passed_on, *options_of[method]], budget, later)
        rows.append(describe(method, options.out / method, options.val_data))
        result = {"rows": rows, "machine": machine(), "versions": versions(), **settings}
        (options.out / "sweep.json").write_text(json.dumps(result, indent=2) + "\n")
        if not whole or (later and budget.training <= 0):
            print(f"tools.sweep: the {options.minutes:g} minutes are over; call it again to go on")
            break
    show(rows, Console())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="FILE", help="the converted training images")
    parser.add_argument("--val-data", required=True, metavar="FILE", help="the converted labelled images to classify")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the runs")
    parser.add_argument(
        "--methods",
        default=",".join(sorted(REGISTRY)),
        metavar="NAME,NAME,...",
        help="the methods to train (default: all)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METHOD:OPTION=VALUE",
        help="an option of train.py for one method; may be given several times",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="the evaluations of the papers' tables: kNN of 200 neighbours, each method's published linear probe with "
        "its last and its best epoch, and the difference from the published figures",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.0,
        metavar="N",
        help="the minutes that this call may take: training stops with a checkpoint in time for the evaluations "
        "(default: no limit)",
    )
    options = parser.parse_args(arguments)
    if not options.minutes >= 0:
        raise Failure(f"--minutes is {options.minutes:g}; give a number of minutes, or 0 for no limit")
    return options


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: say how to continue, and exit with the code of a stopped run."""
    print("tools.sweep: stopped by a signal; call it again to go on", file=sys.stderr)
    sys.exit(STOPPED)


def describe_data(path: str) -> dict[str, Any]:
    """Return what identifies a data set wherever its file lies: source, number of images and checksum."""
    dataset = open_dataset(path)
    return {"source": dataset.name, "images": dataset.number, "checksum": dataset.checksum}


def own_options(method: str, settings: Sequence[str]) -> list[str]:
    """Return the options of `--set` that are for one method, as train.py takes them.

    Raises:
        Failure: one of them is not METHOD:OPTION=VALUE.
    """
    own = []
    for setting in settings:
        owner, colon, rest = setting.partition(":")
        name, equals, value = rest.partition("=")
        if not (colon and equals and owner in REGISTRY):
            raise Failure(f"--set {setting} is not METHOD:OPTION=VALUE")
        own += [f"--{name}", value] if owner == method else []
    return own


def train(
    method: str,
    options: argparse.Namespace,
    train_options: Sequence[str],
    budget: Budget,
    later: int = 0,
) -> bool:
    """Train and evaluate one method, leaving out whatever an earlier call has finished.

    Args:
        later: the number of methods that come after it.

    Returns:
        Whether it was trained to its last step; otherwise its newest checkpoint was evaluated.

    Raises:
        Failure: a program failed and has printed why, or the run of this name was trained on other images.
    """
    run, whole = options.out / method, True
    checksums = {name: describe_data(getattr(options, name))["checksum"] for name in ("data", "val_data")}
    refuse_other_images(run, checksums["data"])
    first_step = newest_state(run).get("step", 0)
    data = ["--data", options.data, "--val-data", options.val_data]
    if not (run / "summary.json").exists():
        resume = ["--resume"] if (run / "config.json").exists() else []
        command = ["train.py", "--method", method, *data, "--output", str(run), *train_options, *resume]
        whole = call(command, budget.training, TimeLeft(method, run, first_step, later))
        if not whole and not newest_state(run):
            raise Failure(f"{method} had no time for a checkpoint; give more --minutes")
    step = newest_state(run).get("step")
    protocols = evaluations.PUBLISHED if options.published else evaluations.USUAL
    for name, given in protocols.items():
        done = evaluations.is_done(run, name, options.published, step) and evaluations.is_of(run, name, checksums)
        if not done:
            call(["eval.py", name, "--run", str(run), *data, *given])
    budget.evaluation = max(budget.evaluation, evaluations.seconds(run))
    return whole


def refuse_other_images(run: Path, checksum: str) -> None:
    """Refuse to go on with a run of the same name that was trained on images with another checksum.

    Raises:
        Failure: the run was trained on other images.
    """
    config = run / "config.json"
    if config.exists() and json.loads(config.read_text())["data"].get("checksum") != checksum:
        raise Failure(f"{run} was trained on other images than --data; give those, or another --out")


if __name__ == "__main__":
    sys.exit(main())
