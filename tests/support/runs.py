"""Small runs of train.py for tests: the data, the options, and what a run left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from pipelines.compiled import compile_hot_path
from tests.support.datasets import photos
from tests.support.started import WHOLE_RUN

ROOT = Path(__file__).resolve().parents[2]

#: CLIM so small that a step takes milliseconds: 3 steps an epoch, partners from the first epoch on, new ones every 2.
TINY = {
    "method": "clim", "recipe": "cifar10", "threads": 1, "precision": "fp32", "compile": False, "log-every": 1,
    "knn-every": 0, "width": 4, "image-size": 16, "resolutions": "16,12", "batch-size": 16, "bn-splits": 2,
    "epochs": 20, "warmup-epochs": 1, "queue-size": 64, "dim": 16, "neighbors": 4, "clusters": 4, "whiten": 4,
    "start-epoch": 0, "refresh-epochs": 2, "mix-probability": 0.8, "resize": "area",
}  # fmt: skip


LAST = 60  # steps of the tiny run, 3 an epoch


@dataclass(frozen=True)
class Data:
    """48 labelled training images of 3 classes and 12 held-out ones."""

    train: Path
    held_out: Path


def make_data(folder: Path) -> Data:
    return Data(Path(photos(folder / "train", each=16).path), Path(photos(folder / "held_out", each=4).path))


def arguments(data: Path | str | None, /, **options: Any) -> list[str]:
    """Options of train.py: TINY, changed by `options`; None leaves one out, a bool becomes --name or --no-name."""
    given: dict[str, Any] = TINY | {"data": data} | {name.replace("_", "-"): value for name, value in options.items()}
    words: list[str] = []
    for name, value in given.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}


def command(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a program of the project to its end in a process of its own."""
    line = [sys.executable, *program.split(), *map(str, words)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True)
    try:
        output, error = process.communicate(timeout=240)
    finally:
        kill(process)
    return subprocess.CompletedProcess(line, process.returncode, output, error)


def workers(launcher: int) -> list[int]:
    """The processes that a launcher has started (torchrun gives each a session of its own)."""
    try:
        return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
    except OSError:
        return []


def kill(process: subprocess.Popen[Any]) -> None:
    """Ends a process and its workers, whatever they wait for: one that is left would hold the pipes for ever."""
    if process.poll() is None:
        for pid in (*workers(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)


def start(*words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "train.py", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True)


def signalled(words: list[str], run: Path, step: int, number: signal.Signals) -> tuple[int, str]:
    """Starts train.py, sends a signal once the run has logged `step`; (exit code, what it printed)."""
    process = start(*words)
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and last_step(run) < step:
            assert time.monotonic() < deadline, f"step {step} never came"
            time.sleep(0.001)
        process.send_signal(number)
        output, error = process.communicate(timeout=60)
        return process.returncode, output + error
    finally:
        kill(process)


def last_step(run: Path) -> int:
    """The newest step in a metrics.jsonl that is being written."""
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])
    return -1


def in_process(program: Any, monkeypatch: Any, *words: object) -> int:
    """The `main` of train.py or eval.py, here: quicker by its imports. Process-wide settings are put back."""
    sys.audit(WHOLE_RUN)
    threads, random, environment = torch.get_num_threads(), torch.get_rng_state(), dict(os.environ)
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        return int(program.main())
    finally:
        compile_hot_path(False)  # which sets a variable, too
        os.environ.clear()
        os.environ.update(environment)
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(threads)
        torch.set_rng_state(random)


def rows(run: Path, *kind: str) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl, those with the fields `kind` only; without what the clock says."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if name not in ("samples_per_s", "wait_share", "first_step_s")}
        for row in read
        if all(name in row for name in kind)
    ]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def options(data, run, /, **changed):
    """A tiny run's command line."""
    given = {"val_data": data.held_out, "output": run, "checkpoint_every": 5, "knn_every": 10} | changed
    return arguments(data.train, **given)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Those of the run's newest checkpoint."""
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "model.safetensors")


def assert_same_run(first: Path, second: Path) -> None:
    """Every row but for the clock, in the same order, and every weight, bit for bit."""
    assert rows(first) == rows(second)
    left, right = weights(first), weights(second)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
