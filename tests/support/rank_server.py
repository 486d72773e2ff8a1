"""A process that imports the project once and forks ranks from itself, so that they start at once.

`tests.support.gloo` starts it and writes one line per job: its kind, the number of ranks, and the folder with the rest.
The server answers with an empty line when all ranks have ended; their exit codes are in the folder. It ends with its
input, and so with pytest.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

#: What ranks import, beside their own test module. Where a package is missing, the tests that need it are skipped.
PRELOADED = ("torch.nn.parallel", "train", "eval", "pytest", "tests.support.datasets")


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a rank prints is no answer
    for module in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for line in sys.stdin:
        kind, processes, folder = line.rstrip("\n").split(" ", 2)
        job, count = (run_function if kind == "function" else run_program), int(processes)
        ranks = {fork(job, rank, count, Path(folder)): rank for rank in range(count)}
        wait_for(ranks, Path(folder), together=kind == "function")
        print(file=answers, flush=True)


def fork(job: Callable[[int, int, Path], None], rank: int, processes: int, folder: Path) -> int:
    """Start a rank, and return its process ID."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        job(rank, processes, folder)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's destructors may wait for ever, see tools/run/process_group.py


def wait_for(ranks: dict[int, int], folder: Path, together: bool) -> None:
    """Wait until all ranks have ended; if they work together, one that fails ends the others, which wait for it."""
    while ranks:
        pid, status = os.wait()
        if pid not in ranks:
            continue
        (folder / f"{ranks.pop(pid)}.exit").write_text(str(os.waitstatus_to_exitcode(status)))
        if status and together:
            for other in ranks:
                os.kill(other, signal.SIGKILL)


def run_function(rank: int, processes: int, folder: Path) -> None:
    """Save what the job's function returns on this rank of a gloo group."""
    torch.set_num_threads(1)
    function: Callable[..., Any]
    function, args = torch.load(folder / "job.pt", weights_only=False)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes, timeout=timedelta(seconds=60))
    torch.save(function(*args), folder / f"{rank}.pt")
    dist.barrier()


def run_program(rank: int, processes: int, folder: Path) -> None:
    """Call `main` of train.py or eval.py in the environment that torchrun gives to its processes."""
    job = json.loads((folder / "job.json").read_text())
    for stream, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / f"{rank}.{stream}", os.O_WRONLY | os.O_CREAT), number)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), **job["environment"]}
    sys.argv = [f"{job['program']}.py", *job["words"][rank]]
    sys.exit(importlib.import_module(job["program"]).main())


if __name__ == "__main__":
    serve()
