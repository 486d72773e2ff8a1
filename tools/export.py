"""Exports the encoder of a run: weights under a library's keys, verified on real images, with a model card beside them.

    python -m tools.export runs/clim-photos clim.safetensors                       torchvision's keys (a ViT: timm's)
    python -m tools.export runs/clim-photos clim.safetensors --onnx clim.onnx      and the network as ONNX

Writes OUT.safetensors, whose metadata describe it, and OUT.md, the model card. No file appears under its name before
all of them have been read back and have given the features of the run's own network: in this project's network, in the
library's class if the library is installed, and in onnxruntime.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.printable import printable
from tools.command_line import OneLineParser, guarded_main
from tools.exporting.parity_check import Checked
from tools.exporting.reference_models import LAYOUTS
from tools.exporting.verified_export import export


def main(arguments: Sequence[str] | None = None) -> int:
    def run() -> None:
        options, console = parse(arguments), Console(soft_wrap=True)
        exported = export(options, lambda note: console.print(printable(note), markup=False))
        show(exported.checks, console)
        console.print(f"written: {', '.join(printable(str(path)) for path in exported.files)}", markup=False)

    return guarded_main("tools.export", run)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run of train.py")
    parser.add_argument(
        "out", type=Path, help="the file to write, OUT.safetensors; the model card is written beside it, OUT.md"
    )
    parser.add_argument(
        "--layout",
        metavar="NAME",
        help=f"the library whose keys the weights get: {' or '.join(LAYOUTS)} (default: torchvision, for a ViT timm)",
    )
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="a file for the network as ONNX (default: none)")
    parser.add_argument(
        "--checkpoint",
        choices=("newest", "best"),
        default="newest",
        help="the checkpoint to export; best is the one with the best kNN accuracy in training (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="the converted images that features are compared on (default: the run's training images)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


def show(checks: Sequence[Checked], console: Console) -> None:
    """Print each comparison of features as a row of a table."""
    table = Table(title="features against the run's network: largest difference over largest feature")
    table.add_column("read by")
    table.add_column("difference", justify="right")
    table.add_column("limit", justify="right")
    for check in checks:
        found = check.why_not if check.difference is None else f"{check.difference:.1e}"
        table.add_row(Text(check.what), Text(found), "" if check.difference is None else f"{check.limit:g}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
