"""Measure an encoder on labelled images, by protocols that have names: `python eval.py --help`."""

from __future__ import annotations

import sys

from rich.console import Console

from tools.command_line import guarded_main
from tools.evaluation.evaluate import evaluate
from tools.evaluation.options import parse


def main() -> int:
    return guarded_main("eval.py", lambda: evaluate(parse(), Console()))


if __name__ == "__main__":
    sys.exit(main())
