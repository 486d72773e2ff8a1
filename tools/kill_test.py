"""Kills a run at random moments, resumes it each time, and compares the result with an undisturbed run.

    python -m tools.kill_test --kills 100 --out /tmp/kills -- --method clim --data data/cifar10.beton --width 8

Options after `--` are those of train.py. The undisturbed run is in OUT/undisturbed, the killed one in OUT/killed. Each
kill is of one of three kinds, drawn at random (--seed):

    1 in 6    during start-up: within 6 s of the start
    2 in 6    while a checkpoint is being written, once the run has reached a certain step
    3 in 6    within 50 ms of reaching a certain step; these steps are spread over the run

A signal other than KILL must also leave a checkpoint of the last logged step. With several processes, all of them and
their launcher get the signal.

Exit code 0: all weights, all numbers of the optimizer and all logged rows are equal, bit for bit. 1: some differ.
2: the test could not be carried out.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on
from tools.reliability.observed_run import (
    checkpoint_is_being_written,
    last_logged_step,
    last_saved_step,
    metrics_inode,
)
from tools.reliability.run_differences import differences
from tools.reliability.training_process import log_of, send_to_all, training
from tools.run.process_start import STOPPED

_LONGEST_RUN_S = 24 * 3600  # a run that hangs for this long is killed


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.kill_test", lambda: kill_test(arguments))


def kill_test(arguments: Sequence[str] | None) -> int:
    """Train twice, once undisturbed and once with kills, and compare; return the exit code."""
    own, train_options = own_and_passed_on(arguments)
    options = parse(own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that no child is left running
    undisturbed, killed = options.out / "undisturbed", options.out / "killed"
    if undisturbed.exists() or killed.exists():
        raise Failure(f"{options.out} holds runs already; give another --out")
    finish(train_options, undisturbed, options.processes)
    if torch.cuda.is_available():
        print("tools.kill_test: a GPU adds in no fixed order; expect differences", file=sys.stderr)
    hits, inside = disturb(train_options, killed, last_logged_step(undisturbed), options)
    finish(train_options, killed, options.processes)
    found = differences(undisturbed, killed)
    for line in found[:20]:
        print(line)
    where = f", {inside} of them while a checkpoint was being written" if options.signal == "KILL" else ""
    outcome = f"{len(found)} differences" if found else "equal to the undisturbed run, bit for bit"
    print(f"{options.processes} process(es), {hits} times SIG{options.signal}{where}: {outcome}")
    return int(bool(found))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.kill_test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=100, metavar="N", help="the number of kills (default: %(default)s)"
    )
    parser.add_argument(
        "--signal", choices=["KILL", "TERM", "INT", "USR1"], default="KILL", help="the signal (default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="the number of processes that train together (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed of the random moments (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600,
        metavar="SECONDS",
        help="the longest wait for a step, and for the end of a run after the signal (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder of the two runs; it must not hold any yet"
    )
    return parser.parse_args(arguments)


def disturb(train_options: list[str], run: Path, steps: int, options: argparse.Namespace) -> tuple[int, int]:
    """Start the run --kills times, and end it at a random moment each time.

    Args:
        steps: the number of steps of the undisturbed run.

    Returns:
        How many starts were still running when the signal was sent, and how many of these left a partly written
        checkpoint.

    Raises:
        Failure: a step was not reached in time, or a start ended otherwise than it should.
    """
    moments, number = random.Random(options.seed), getattr(signal, f"SIG{options.signal}")
    hits = inside = 0
    for attempt in range(options.kills):
        kind, target = moments.random(), steps * (attempt + moments.random()) / (options.kills + 1)
        before = metrics_inode(run)
        resume = ["--resume"] if attempt else []
        with training([*train_options, *resume], run, options.processes) as process:
            if kind < 1 / 6:
                wait_until(process, lambda: False, 6 * moments.random())
            else:
                wait_for_step(process, run, target, before, options.timeout)
                if kind < 1 / 2:
                    wait_until(process, lambda: checkpoint_is_being_written(run), 20)
                wait_until(process, lambda: False, 0.05 * moments.random())
            if process.poll() is None:
                hits += 1
                send_to_all(process, number, options.processes)
            code = process.wait(options.timeout)
        inside += number == signal.SIGKILL and checkpoint_is_being_written(run)
        if code not in ({0, STOPPED, -number} | ({1} if options.processes > 1 else set())):
            raise Failure(f"start {attempt + 1} ended with exit code {code}; see {log_of(run)}")
        if number != signal.SIGKILL and last_saved_step(run) < last_logged_step(run):
            raise Failure(f"SIG{options.signal} lost the steps after {last_saved_step(run)}; see {log_of(run)}")
        print(
            f"{attempt + 1} of {options.kills}: at step {last_logged_step(run)} of {steps}, exit code {code}",
            flush=True,
        )
    return hits, inside


def wait_for_step(process: subprocess.Popen[bytes], run: Path, step: float, before: int, timeout: float) -> None:
    """Wait until this start of the run has logged a step, or has ended.

    Resuming replaces metrics.jsonl, so that its rows are of this start once its inode is no longer `before`.

    Raises:
        Failure: the step was not reached in time.
    """
    reached = wait_until(process, lambda: metrics_inode(run) != before and last_logged_step(run) >= step, timeout)
    if not reached and process.poll() is None:
        raise Failure(f"step {step:.0f} was not reached within {timeout:g} s; see {log_of(run)}")


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition became true before the process ended and before the time was up."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.001)
    return False


def finish(train_options: list[str], run: Path, processes: int) -> None:
    """Train to the end, from the newest checkpoint if the run exists.

    Raises:
        Failure: the run failed.
    """
    resume = ["--resume"] if run.exists() else []
    with training([*train_options, *resume], run, processes) as process:
        if (code := process.wait(_LONGEST_RUN_S)) != 0:
            raise Failure(f"the run ended with exit code {code}; see {log_of(run)}")


if __name__ == "__main__":
    sys.exit(main())
