"""Draws a contact sheet of the images that a method is trained on.

    python -m tools.preview views data/photos.beton views.png --method clim        the views that a recipe makes
    python -m tools.preview partners runs/clim-photos data/photos.beton pairs.png  anchors beside their partners

All pictures come through the same loader as in training. A partner has a green frame if its label is that of the
anchor, a red one if it is another, and none if one of them has no label.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models import build, resolve
from models.methods.recipes import recipe_for
from models.methods.registry import REGISTRY
from models.storage import checkpoint
from models.storage.atomic_files import sync_file
from pipelines import Dataset, open_dataset
from pipelines.plan.pairing import Pairing
from tools.command_line import Failure, OneLineParser, guarded_main
from tools.pictures.view_sheets import choose_anchors, partners_sheet, views_sheet
from tools.run.record import method_of, read_config
from tools.staging import Staging


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.preview", lambda: draw(parse(arguments)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.preview", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sheets = parser.add_subparsers(dest="sheet", metavar="{views,partners}", required=True)
    views = sheets.add_parser("views", help="the views that a recipe makes of a data set")
    views.add_argument("data", help="the converted images")
    views.add_argument("out", type=Path, help="the picture to write, a PNG or another type that Pillow writes")
    views.add_argument(
        "--method", default="clim", choices=sorted(REGISTRY), help="the method whose views are drawn (default: clim)"
    )
    views.add_argument(
        "--recipe",
        metavar="NAME",
        help="the method's recipe (default: chosen by the source and image size of the data set, as in training)",
    )
    partners = sheets.add_parser("partners", help="anchors, their selected partners, and a mixture of both")
    partners.add_argument("run", type=Path, help="the folder of a run whose method selects partners")
    partners.add_argument("data", help="the run's converted training images")
    partners.add_argument("out", type=Path, help="the picture to write, a PNG or another type that Pillow writes")
    for sheet in (views, partners):
        sheet.add_argument(
            "--samples", type=int, default=8, metavar="N", help="the number of rows of the sheet (default: %(default)s)"
        )
        sheet.add_argument(
            "--seed",
            type=int,
            default=0,
            metavar="N",
            help="the seed of the choice of samples and of the crops (default: %(default)s)",
        )
        sheet.add_argument("--force", action="store_true", help="replace a picture that exists")
    return parser.parse_args(arguments)


def draw(options: argparse.Namespace) -> None:
    """Draw the sheet that the options ask for, and write it."""
    check_target(options.out, options.force)
    dataset = open_dataset(options.data, "none")  # unchecked: damaged images are to be seen too
    count = min(options.samples, dataset.number)
    if options.sheet == "views":
        name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
        method = build(options.method, resolve(options.method, name, backbone="resnet18", width=8))
        drawn = views_sheet(dataset, method.views, count, options.seed)
    else:
        pairing = newest_with_partners(options.run, dataset)
        query = method_of(read_config(options.run)).views[0]
        anchors = choose_anchors(np.flatnonzero(pairing.count > 0), count, options.seed)
        drawn = partners_sheet(dataset, pairing, query, anchors, options.seed)
    with Staging(options.out) as staging:
        temporary = staging.folder / options.out.name
        drawn.save(temporary)
        sync_file(temporary)
        staging.commit([(temporary, options.out)], [])
    print(f"{options.out}: {drawn.width} x {drawn.height}")


def check_target(out: Path, force: bool) -> None:
    """Check, before anything is drawn, that the picture may be written.

    Raises:
        Failure: the name is that of a folder, or of a file that --force does not allow to replace.
    """
    if out.is_dir():
        raise Failure(f"{out} is a folder; name a file")
    if os.path.lexists(out) and not force:
        raise Failure(f"{out} exists and is left as it is; --force replaces it")


def newest_with_partners(run: Path, dataset: Dataset) -> Pairing:
    """Return the partners in a run's newest checkpoint.

    Raises:
        Failure: the run has no checkpoint, has no partners yet, or was trained on other data.
    """
    found, notes = checkpoint.newest(run / "checkpoints")
    if found is None:
        raise Failure(notes[0] if notes else f"{run} holds no checkpoint; train it first")
    if found.state.get("data_checksum") != dataset.checksum:
        raise Failure(f"{run} was not trained on {dataset.path}; give the data set of the run")
    if found.pairing is None or not (found.pairing.count > 0).any():
        raise Failure(
            f"{run} has selected no partners at step {found.state['step']}; train past the method's start epoch"
        )
    return found.pairing


if __name__ == "__main__":
    sys.exit(main())
