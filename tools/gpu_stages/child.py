"""The process of one stage of `tools.gpu_check`: runs it, and writes each of its results at once.

    python -m tools.gpu_stages.child STAGE RESULT SCRATCH DEVICE REPEATS

DEVICE is cuda, or cpu for a rehearsal at tiny sizes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from pipelines.formats.card import write_json
from pipelines.threads import usable_cores
from tools.benchmarks.measure import Settings, load_average
from tools.benchmarks.table import show
from tools.command_line import guarded_main
from tools.gpu_stages.context import Context
from tools.gpu_stages.registry import STAGES
from tools.run.environment import commit, machine, versions


def main() -> int:
    name, result, scratch, device, repeats = sys.argv[1:]
    threads = 1 if device == "cpu" else usable_cores()  # tiny tensors gain nothing from several
    settings = Settings(int(repeats), threads, device)
    context = Context(settings, device == "cpu", Path(scratch))
    return guarded_main(f"stage {name}", lambda: run(name, Path(result), context))


def run(name: str, path: Path, context: Context) -> None:
    """Run a stage and write its rows to `path`."""
    stage, settings = STAGES[name], context.settings
    torch.set_num_threads(settings.threads)
    if context.rehearsal:
        torch.compiler.set_stance("force_eager")  # the compiler would take minutes, and is the same as in training
    rows: list[dict[str, object]] = []
    result = {
        "stage": name,
        "rehearsal": context.rehearsal,
        "commit": commit(),
        "machine": machine(),
        "versions": versions("torchvision", "pillow", "triton"),
        "device": settings.device,
        "threads": settings.threads,
        "repeats": settings.repeats,
        "load_average": load_average(),
        "benchmarks": {name: rows},
    }
    write_json(path, result)
    console = Console(width=100)
    for row in import_module(f"tools.gpu_stages.{stage.module}").rows(context, *stage.arguments):
        rows.append(row)
        write_json(path, result)
        show(name, row, console)
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
