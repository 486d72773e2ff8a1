"""Measure an encoder on labelled images, by protocols that have names: `python eval.py --help`."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from pipelines.executors.damage import DecodeError
from tools.conversion.open_source import shown
from tools.evaluation.evaluate import evaluate
from tools.evaluation.options import parse
from tools.run.options import Failure
from tools.run.process_group import leave

_MENDABLE = (Failure, ValueError, OSError, FloatingPointError, ModuleNotFoundError, DecodeError)


def main() -> int:
    try:
        evaluate(parse(), Console())
    except _MENDABLE as error:
        rank = int(os.environ.get("RANK", "0"))
        print(f"eval.py: {f'process {rank}: ' if rank else ''}{shown(str(error))}", file=sys.stderr)
        return leave(2)
    return leave(0)


if __name__ == "__main__":
    sys.exit(main())
