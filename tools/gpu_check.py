"""Measures on a GPU whatever only a GPU can show, in stages, within minutes; without a GPU it rehearses the same.

    python -m tools.gpu_check                                     # every stage, at most 10 minutes, on one H100 or H200
    python -m tools.gpu_check --minutes 4 --out results step-msvq step-vit

Each stage runs in a process of its own and for at most 2 minutes. Its results are on the terminal and in OUT/STAGE.json
as soon as they are known, its output in OUT/STAGE.txt. The exit code is 0 if every stage is done, 1 if one has failed,
and 3 if none has failed but the time was too short for all.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipelines.formats.card import write_json
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser, guarded_main
from tools.diagnosis.checkout import ROOT
from tools.gpu_stages import result_file
from tools.gpu_stages.registry import STAGES, Stage
from tools.gpu_stages.result_file import DONE, FAILED, NOT_RUN
from tools.gpu_stages.supervisor import Ending, supervise

LIMIT = {"cuda": 120, "cpu": 300}  # seconds of a stage; a rehearsal may be on a small, busy machine
FAILURE, TOO_SHORT = 1, 3  # exit codes
_REPEATS = {"cuda": 3, "cpu": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.gpu_check", lambda: check(arguments))


def check(arguments: Sequence[str] | None) -> int:
    """Run the stages that the command line names, in the order of their worth; return the exit code."""
    options = parse(arguments)
    end = time.monotonic() + 60 * options.minutes
    device = "cpu" if options.rehearse or not gpu_is_here() else "cuda"
    options.out.mkdir(parents=True, exist_ok=True)
    if device == "cpu":
        reason = "as asked" if options.rehearse else "no CUDA device is found here"
        say(f"a REHEARSAL on the CPU at tiny sizes, {reason}: its numbers mean nothing")
    say(f"{len(options.stages)} stages, {options.minutes:g} minutes, into {printable(str(options.out))}")
    endings: dict[str, Ending] = {}
    with exit_at_signals(), tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        for stage in options.stages:
            left = end - time.monotonic()
            if left > (stage.seconds if device == "cuda" else 0):
                endings[stage.name] = run(stage, options.out, Path(scratch), device, min(LIMIT[device], left))
            else:
                say(f"{stage.name}: not run, {max(0.0, left):.0f} s are left and it takes about {stage.seconds} s")
                endings[stage.name] = Ending(NOT_RUN, 0.0)
            write_json(options.out / "gpu-check.json", summary(device, endings, options.stages))
    return report(endings, options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        Failure: a stage is unknown, or the minutes are no positive number.
    """
    lines = [f"    {name:<16} {stage.summary}" for name, stage in STAGES.items()]
    parser = OneLineParser(
        prog="tools.gpu_check",
        description=__doc__,
        epilog="stages, in the order in which they run:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="the stages to run (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=10, metavar="X", help="the time for all stages together (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/gpu-check"),
        metavar="DIR",
        help="the folder of the results; a stage that is run again replaces its own (default: %(default)s)",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="the same on the CPU at tiny sizes, as is done without a GPU anyway"
    )
    options = parser.parse_args(arguments)
    if not 0 < options.minutes < float("inf"):
        raise Failure(f"--minutes is {options.minutes:g}; give more than 0")
    for name in options.stages:
        if name not in STAGES:
            raise Failure(f"there is no stage '{printable(name)}'; take {', '.join(STAGES)}")
    chosen = options.stages or list(STAGES)
    options.stages = [stage for name, stage in STAGES.items() if name in chosen]
    return options


def gpu_is_here() -> bool:
    """Return whether torch finds a GPU, without keeping any of its memory."""
    import torch  # here, so that --help and mistakes are answered at once

    return torch.cuda.is_available()


def run(stage: Stage, out: Path, scratch: Path, device: str, limit: float) -> Ending:
    """Run a stage; add to its file how it ended."""
    say(f"{stage.name}: {stage.summary}")
    path = out / f"{stage.name}.json"
    path.unlink(missing_ok=True)  # of an earlier check
    words = [sys.executable, "-m", "tools.gpu_stages.child", stage.name, path.absolute(), scratch, device]
    ending = supervise(
        [*map(str, words), str(_REPEATS[device])],
        out / f"{stage.name}.txt",
        limit,
        environment(scratch / "compiled" / stage.cache, device),
    )
    say(f"{stage.name}: {ending.state} after {ending.seconds:.0f} s")
    found = result_file.read(path) or {"stage": stage.name, "rehearsal": device == "cpu"}
    write_json(path, found | entry(ending) | {"limit_s": round(limit, 1)})
    return ending


def environment(cache: Path, device: str) -> dict[str, str]:
    """Return the environment of a stage: this process's, with the project on the path and compiled code in `cache`."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    own |= {"TRITON_CACHE_DIR": str(cache / "triton"), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    return os.environ | own | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})


def entry(ending: Ending) -> dict[str, object]:
    """Return how a stage ended, as JSON."""
    lines = {"last_lines": list(ending.last_lines)} if ending.last_lines else {}
    return {"state": ending.state, "seconds": round(ending.seconds, 1), **lines}


def summary(device: str, endings: dict[str, Ending], stages: Sequence[Stage]) -> dict[str, object]:
    """Return the states of all stages so far; those that are still to come are not run."""
    ended = {stage.name: endings.get(stage.name, Ending(NOT_RUN, 0.0)) for stage in stages}
    return {"rehearsal": device == "cpu", "stages": {name: entry(ending) for name, ending in ended.items()}}


def report(endings: dict[str, Ending], out: Path) -> int:
    """Say how every stage ended, with the last lines of those that failed; return the exit code."""
    for name, ending in endings.items():
        say(f"{name:<16} {ending.state}" + (f", {ending.seconds:.0f} s" if ending.state != NOT_RUN else ""))
        if ending.state == FAILED:
            for line in ending.last_lines[-5:]:
                say(f"    {printable(line)}")
    states = {ending.state for ending in endings.values()}
    say(f"results in {printable(str(out))}")
    return FAILURE if FAILED in states else 0 if states == {DONE} else TOO_SHORT


def say(line: str) -> None:
    """Print a line at once; a terminal that is gone does not end the check."""
    try:
        print(f"gpu_check: {line}", flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # to the end of the process


@contextmanager
def exit_at_signals() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP raise SystemExit, so that no stage outlives this process."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
