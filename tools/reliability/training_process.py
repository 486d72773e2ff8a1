"""Runs of train.py as child processes, for the programs that stop, measure or repeat them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def train_command(options: Sequence[str], run: Path, processes: int = 1) -> list[str]:
    """Return the command line that trains into the folder `run`, under torchrun if it is more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    program = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / "train.py")]
    return [*program, *options, "--output", str(run)]


def train_environment() -> dict[str, str]:
    """Return this process's environment, in which train.py finds the project whatever the working directory is."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def log_of(run: Path) -> Path:
    """Return the file that gets the output of a run: RUN.txt, beside the run's folder."""
    return run.with_suffix(".txt")


@contextlib.contextmanager
def training(options: Sequence[str], run: Path, processes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Start train.py with its output appended to `log_of(run)`; on exit, kill whatever of it is still running.

    Args:
        options: options of train.py, without --output.
        run: the folder of the run.
        processes: how many processes train together. If several, the yielded process is their launcher.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    with log_of(run).open("ab") as log:
        command = train_command(options, run, processes)
        process = subprocess.Popen(command, env=train_environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            send_to_all(process, signal.SIGKILL, processes)
            process.wait()


def send_to_all(process: subprocess.Popen[bytes], number: int, processes: int) -> None:
    """Send a signal to a run: if it has several processes, to each of them and to their launcher, as schedulers do."""
    workers: list[int] = []
    if processes > 1:
        with contextlib.suppress(OSError):
            workers = [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
    for pid in (*workers, process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
