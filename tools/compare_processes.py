"""Trains the same run with one process and with several, and compares the losses of every step.

    python -m tools.compare_processes --steps 100 --out /tmp/two -- --method clim --data FILE --loader ffcv

What follows `--` are options of train.py; precision is fp32, so that the order of sums is all that differs. Prints the
largest difference and writes nothing but the two runs, into --out. Exit code 1: it is larger than --tolerance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.compare_processes", lambda: compare(arguments))


def compare(arguments: Sequence[str] | None) -> int:
    own, passed_on = own_and_passed_on(arguments)
    parser = OneLineParser(prog="tools.compare_processes", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="of training (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="of the second run (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=2e-2, help="of a loss (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two runs")
    options = parser.parse_args(own)
    given = [*passed_on, "--max-steps", str(options.steps), "--log-every", "1", "--precision", "fp32"]
    losses = []
    for processes in (1, options.processes):
        run = options.out / f"{processes}-processes"
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        line = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / "train.py"), *given]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if subprocess.run([*line, "--output", str(run)], env=environment, check=False).returncode:
            raise Failure(f"the run with {processes} processes failed; its own words are above")
        losses.append(read_losses(run))
    one, several = losses
    if one.keys() != several.keys() or len(one) != options.steps:
        raise Failure(f"the runs logged {len(one)} and {len(several)} of {options.steps} steps", code=1)
    differences = {step: abs(several[step] - loss) for step, loss in one.items()}
    worst = max(differences, key=lambda step: differences[step])
    for last in (10, options.steps):
        shown = max(difference for step, difference in differences.items() if step <= last)
        print(f"largest difference of the loss up to step {min(last, options.steps)}: {shown:.2e}")
    print(f"at step {worst}: {one[worst]:.6f} with one process, {several[worst]:.6f} with {options.processes}")
    return int(differences[worst] > options.tolerance)


def read_losses(run: Path) -> dict[int, float]:
    """The logged loss of every step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


if __name__ == "__main__":
    sys.exit(main())
