"""Kills a run again and again, resumes it each time, and compares it with one that nothing disturbed.

    python -m tools.kill_test --kills 100 --out /tmp/kills -- --method clim --data data/cifar10.beton --width 8

What follows `--` are options of train.py. The undisturbed run goes into OUT/whole, the other one into OUT/killed. The
moments are random (`--seed`): one in six while the run still starts, two in six inside the writing of a checkpoint, and
the others wherever the run is, spread over its steps; a signal other than KILL must also leave a checkpoint of the last
step. Of several processes, all are hit, and their launcher too.
Exit code 0: every weight, every number of the optimizer and every logged row is equal, bit for bit. 1: not. 2: it
could not be tried.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from models.storage import checkpoint
from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on
from tools.run.process_start import STOPPED

ROOT = Path(__file__).resolve().parent.parent
_WHOLE_RUN_S = 24 * 3600  # a run that hangs is ended, with whatever it started
CLOCK = ("samples_per_s", "wait_share", "first_step_s")  # fields of a row that no two runs have alike


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.kill_test", lambda: kill_test(arguments))


def kill_test(arguments: Sequence[str] | None) -> int:
    own, given = own_and_passed_on(arguments)
    parser = OneLineParser(prog="tools.kill_test", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="how often (default: %(default)s)")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT", "USR1"], default="KILL", help="(default: KILL)")
    parser.add_argument("--processes", type=int, default=1, help="that train together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of one start (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two runs; must not hold any")
    options = parser.parse_args(own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no run is left behind
    whole, killed = options.out / "whole", options.out / "killed"
    if whole.exists() or killed.exists():
        raise Failure(f"{options.out} holds runs already; give another --out")
    finish(given, whole, options)
    if torch.cuda.is_available():
        print("tools.kill_test: a GPU's sums are not of one order; expect differences", file=sys.stderr)
    hit, inside = disturb(given, killed, last_step(whole), options)
    finish(given, killed, options)
    different = differences(whole, killed)
    for line in different[:20]:
        print(line)
    place = f", {inside} of them inside the writing of a checkpoint" if options.signal == "KILL" else ""
    told = f"{len(different)} differences" if different else "equal to the undisturbed run, bit for bit"
    print(f"{options.processes} process(es), {hit} times SIG{options.signal}{place}: {told}")
    return int(bool(different))


def disturb(given: list[str], run: Path, steps: int, options: argparse.Namespace) -> tuple[int, int]:
    """Starts the run, ends it at a random moment, and again; (living runs that were hit, those inside a write)."""
    moments, number = random.Random(options.seed), getattr(signal, f"SIG{options.signal}")
    hit = inside = 0
    for attempt in range(options.kills):
        kind, target = moments.random(), steps * (attempt + moments.random()) / (options.kills + 1)
        before = identity(run)
        with started_run(given, run, options, resume=attempt > 0) as process:
            if kind < 1 / 6:
                wait_until(process, lambda: False, 6 * moments.random())
            else:
                # Resuming replaces metrics.jsonl: what is read then are this start's own steps.
                trains = lambda: identity(run) != before and last_step(run) >= target  # noqa: E731, B023
                if not wait_until(process, trains, options.timeout) and process.poll() is None:
                    raise Failure(f"step {target:.0f} did not come within {options.timeout:g} s")
                if kind < 1 / 2:
                    wait_until(process, lambda: writes(run), 20)
                wait_until(process, lambda: False, 0.05 * moments.random())
            if process.poll() is None:
                hit += 1
                send(process, number, options.processes)
            code = process.wait(options.timeout)
        inside += number == signal.SIGKILL and writes(run)
        if code not in ({0, STOPPED, -number} | ({1} if options.processes > 1 else set())):
            raise Failure(f"start {attempt + 1} ended with exit code {code}; see {log_of(run)}")
        if number != signal.SIGKILL and newest_step(run) < last_step(run):
            raise Failure(f"SIG{options.signal} lost the steps after {newest_step(run)}; see {log_of(run)}")
        print(f"{attempt + 1} of {options.kills}: at step {last_step(run)} of {steps}, exit code {code}", flush=True)
    return hit, inside


def wait_until(process: subprocess.Popen[bytes], true: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes true while the process lives and the time lasts."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if true():
            return True
        time.sleep(0.001)
    return False


def send(process: subprocess.Popen[bytes], number: int, processes: int) -> None:
    """To the run, or with several processes to all of them and their launcher, as a scheduler does."""
    workers: list[int] = []
    if processes > 1:
        with contextlib.suppress(OSError):
            workers = [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
    for pid in (*workers, process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def finish(given: list[str], run: Path, options: argparse.Namespace) -> None:
    """Runs to the end, from the newest checkpoint where there is one."""
    with started_run(given, run, options, resume=run.exists()) as process:
        if (code := process.wait(_WHOLE_RUN_S)) != 0:
            raise Failure(f"the run ended with exit code {code}; see {log_of(run)}")


@contextlib.contextmanager
def started_run(
    given: list[str], run: Path, options: argparse.Namespace, resume: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """A training run whose words go into a file; no process of it is left afterwards."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(options.processes)]
    line = [sys.executable, *(launcher if options.processes > 1 else []), str(ROOT / "train.py"), *given]
    line += ["--output", str(run), *(["--resume"] if resume else [])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run.parent.mkdir(parents=True, exist_ok=True)
    with log_of(run).open("ab") as log:
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            send(process, signal.SIGKILL, options.processes)
            process.wait()


def log_of(run: Path) -> Path:
    return run.with_suffix(".txt")


def identity(run: Path) -> int:
    """Of the file metrics.jsonl; 0 where there is none."""
    with contextlib.suppress(OSError):
        return (run / "metrics.jsonl").stat().st_ino
    return 0


def last_step(run: Path) -> int:
    """The newest step in a metrics.jsonl that may be being written; -1 before there is one."""
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError), (run / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
        return int(json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])["step"])
    return -1


def newest_step(run: Path) -> int:
    """Of the checkpoints, by their names; -1 where there is none."""
    return max((int(path.name[5:13]) for path in (run / "checkpoints").glob("step-*")), default=-1)


def writes(run: Path) -> bool:
    """Whether a checkpoint is half written."""
    return any((run / "checkpoints").glob(".step-*.partial"))


def differences(whole: Path, killed: Path) -> list[str]:
    """A line for each tensor of the last checkpoint, and each row, that is not the same."""
    found: list[str] = []
    first, second = (checkpoint.newest(run / "checkpoints")[0] for run in (whole, killed))
    if first is None or second is None or first.state["step"] != second.state["step"]:
        return ["the last checkpoints are of different steps, or there are none"]
    for name in ("model", "optimizer"):
        ours, theirs = getattr(first, name), getattr(second, name)
        found += [f"{name}: {key} is in one of them only" for key in ours.keys() ^ theirs.keys()]
        found += [f"{name}: {key}" for key in ours.keys() & theirs.keys() if not torch.equal(ours[key], theirs[key])]
    pools = [None if c.pairing is None else c.pairing.pool.tobytes() for c in (first, second)]
    found += ["partners"] if pools[0] != pools[1] else []
    rows = [timeless(run) for run in (whole, killed)]
    found += [f"{len(rows[0])} and {len(rows[1])} rows of metrics.jsonl"] if len(rows[0]) != len(rows[1]) else []
    found += [f"row {n}: {a} and {b}" for n, (a, b) in enumerate(zip(*rows, strict=False)) if a != b]
    return found


def timeless(run: Path) -> list[dict[str, Any]]:
    """The rows of a run without what its clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
