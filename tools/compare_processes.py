"""Trains the same run with one process and with several, and compares the loss of every step.

    python -m tools.compare_processes --steps 100 --out /tmp/two -- --method clim --data FILE --loader ffcv

Options after `--` are those of train.py. Precision is fp32, so that only the order of sums differs. Prints the largest
difference; the two runs are in OUT/1-processes and OUT/N-processes. Exit code 1: a difference is above --tolerance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on
from tools.reliability.training_process import train_command, train_environment


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.compare_processes", lambda: compare(arguments))


def compare(arguments: Sequence[str] | None) -> int:
    """Train both runs and print how far apart their losses are; return the exit code."""
    own, passed_on = own_and_passed_on(arguments)
    options = parse(own)
    train_options = [*passed_on, "--max-steps", str(options.steps), "--log-every", "1", "--precision", "fp32"]
    losses = []
    for processes in (1, options.processes):
        run = options.out / f"{processes}-processes"
        command = train_command(train_options, run, processes)
        if subprocess.run(command, env=train_environment(), check=False).returncode:
            raise Failure(f"the run with {processes} processes failed; its own message is above")
        losses.append(read_losses(run))
    one, several = losses
    if one.keys() != several.keys() or len(one) != options.steps:
        raise Failure(f"the runs logged {len(one)} and {len(several)} of {options.steps} steps", code=1)
    differences = {step: abs(several[step] - loss) for step, loss in one.items()}
    for last in (10, options.steps):
        largest = max(difference for step, difference in differences.items() if step <= last)
        print(f"largest difference of the loss up to step {min(last, options.steps)}: {largest:.2e}")
    worst = max(differences, key=lambda step: differences[step])
    print(f"at step {worst}: {one[worst]:.6f} with one process, {several[worst]:.6f} with {options.processes}")
    return int(differences[worst] > options.tolerance)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.compare_processes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=100, metavar="N", help="the number of steps of both runs (default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=2,
        metavar="N",
        help="the number of processes of the second run (default: %(default)s)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2e-2,
        metavar="X",
        help="the largest difference of a loss that is accepted (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the two runs")
    return parser.parse_args(arguments)


def read_losses(run: Path) -> dict[int, float]:
    """Return the logged loss of every step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


if __name__ == "__main__":
    sys.exit(main())
