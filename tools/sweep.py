"""Trains several methods under one budget, one after the other, evaluates them, and puts the results in one table.

    python -m tools.sweep --data data/cifar10.beton --val-data data/cifar10-test.beton --out runs/sweep \\
        --methods moco,clim,msvq -- --width 16 --max-steps 200

Options after `--` go to train.py for every method; `--set clim:start-epoch=0` adds an option for one method. Calling an
interrupted sweep again continues it: finished methods are skipped, an unfinished one resumes. The table and
OUT/sweep.json hold, for each method, the accuracy of kNN and of a linear probe on the trained network, on the untrained
network and on raw pixels, and two signs of collapse: the spread of the features and their effective rank.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from models.evaluation.collapse import effective_rank, feature_spread
from models.evaluation.features import extract
from models.methods.registry import REGISTRY
from models.storage.encoder import from_run
from pipelines import make_loader, open_dataset
from pipelines.plan.views import evaluation
from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on
from tools.run.environment import machine, versions
from tools.run.process_start import STOPPED, WATCHED

ROOT = Path(__file__).resolve().parent.parent
_FEATURE_BATCH = 512


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.sweep", lambda: sweep(arguments))


def sweep(arguments: Sequence[str] | None) -> None:
    """Train and evaluate every method, and write sweep.json after each of them."""
    own, passed_on = own_and_passed_on(arguments)
    options = parse(own)
    methods = options.methods.split(",")
    for number in WATCHED:
        signal.signal(number, _stop)
    for method in methods:
        if method not in REGISTRY:
            raise Failure(f"unknown method '{method}'; take one of {', '.join(sorted(REGISTRY))}")
    options_of = {method: own_options(method, options.set) for method in methods}
    settings = {
        "data": [describe_data(options.data), describe_data(options.val_data)],
        "options": passed_on,
        "own_options": options.set,
    }
    rows = []
    for method in methods:
        train(method, options, [*passed_on, *options_of[method]])
        rows.append(describe(method, options))
        result = {"rows": rows, "machine": machine(), "versions": versions(), **settings}
        (options.out / "sweep.json").write_text(json.dumps(result, indent=2) + "\n")
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
    return parser.parse_args(arguments)


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


def train(method: str, options: argparse.Namespace, train_options: Sequence[str]) -> None:
    """Train and evaluate one method, leaving out whatever an earlier call has finished.

    Raises:
        Failure: a program failed; it has printed why.
    """
    run = options.out / method
    data = ["--data", options.data, "--val-data", options.val_data]
    refuse_other_images(run, describe_data(options.data)["checksum"])
    if not (run / "summary.json").exists():
        resume = ["--resume"] if (run / "config.json").exists() else []
        call(["train.py", "--method", method, *data, "--output", str(run), *train_options, *resume])
    for name in ("knn", "linear"):
        if not has_baselines(run / f"eval-{name}.json", options):
            call(["eval.py", name, "--run", str(run), *data, "--baselines"])


def refuse_other_images(run: Path, checksum: str) -> None:
    """Refuse to go on with a run of the same name that was trained on other images.

    Raises:
        Failure: the run was trained on images with another checksum.
    """
    config = run / "config.json"
    if config.exists() and json.loads(config.read_text())["data"].get("checksum") != checksum:
        raise Failure(f"{run} was trained on other images than --data; give those, or another --out")


def has_baselines(evaluation: Path, options: argparse.Namespace) -> bool:
    """Return whether there is an evaluation of these images with both baselines; any other is repeated."""
    if not evaluation.exists():
        return False
    found = json.loads(evaluation.read_text())
    given = {"data": options.data, "val_data": options.val_data}
    same = all(found.get(name, {}).get("checksum") == describe_data(path)["checksum"] for name, path in given.items())
    return same and len(found.get("baselines", {})) == 2


def call(command: Sequence[str]) -> None:
    """Run a program of the project to its end; a signal is passed on to it, and its end is waited for.

    Raises:
        Failure: the program failed.
    """
    process = subprocess.Popen([sys.executable, str(ROOT / command[0]), *command[1:]])
    try:
        code = process.wait()
    except BaseException:  # raised by `_stop`: the program must have time to write its checkpoint
        process.terminate()
        process.wait()
        raise
    if code:
        raise Failure(f"{command[0]} failed; call this again to go on: {' '.join(command)}")


def describe(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return a method's row of sweep.json."""
    run = options.out / method
    knn, linear, summary = (
        json.loads((run / name).read_text()) for name in ("eval-knn.json", "eval-linear.json", "summary.json")
    )
    encoder, held_out = from_run(run), open_dataset(options.val_data)
    view = evaluation(encoder.image_size, encoder.crop_ratio)
    with make_loader(held_out, [view], _FEATURE_BATCH, shuffle=False, drop_last=False) as loader:
        features_ND = extract(encoder.backbone, loader)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    baselines = {
        f"{name}_{short}": found["baselines"][long]["top1"]
        for name, found in (("knn", knn), ("linear", linear))
        for short, long in (("untrained", "untrained network"), ("pixels", "raw pixels"))
    }
    return {
        "method": method,
        "steps": summary["step"],
        "images_seen": summary["samples_seen"],
        "seconds": summary["seconds"],
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "knn_protocol": knn["protocol"]["id"],
        "knn": knn["top1"],
        "linear_protocol": linear["protocol"]["id"],
        "linear": linear["top1"],
        **baselines,
        "spread": round(feature_spread(features_ND), 4),
        "rank": round(effective_rank(features_ND), 1),
    }


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title=f"{rows[0]['knn_protocol']}, {rows[0]['linear_protocol']}")
    for column in ("method", "images seen", "loss", "kNN %", "untrained %", "linear %", "spread", "rank", "seconds"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['images_seen']:,}",
            f"{row['first_loss']:.2f} to {row['last_loss']:.2f}",
            f"{row['knn']:.2f}",
            f"{row['knn_untrained']:.2f}",
            f"{row['linear']:.2f}",
            f"{row['spread']:.2f}",
            f"{row['rank']:.1f}",
            f"{row['seconds']:.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
