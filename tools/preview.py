"""Pictures of what a method is shown.

    python -m tools.preview views data/photos.beton views.png --method clim        the views that a recipe makes
    python -m tools.preview partners runs/clim-photos data/photos.beton pairs.png  anchors beside their partners

Everything comes through the training's own loader. Partners have a green frame where their label is the anchor's, a red
one where it is another, none where labels are missing.
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
from tools.pictures.view_sheets import partners_sheet, some_anchors, views_sheet
from tools.run.record import method_of, read_config
from tools.staging import Staging


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.preview", lambda: draw(parse(arguments)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="tools.preview", description="Pictures of what a method is shown.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    views = kinds.add_parser("views", help="the views that a recipe makes of a data set")
    views.add_argument("data", help="converted images")
    views.add_argument("out", type=Path, help="PNG to write")
    views.add_argument("--method", default="clim", choices=sorted(REGISTRY), help="default: clim")
    views.add_argument("--recipe", help="default: by the data set's source and size")
    partners = kinds.add_parser("partners", help="anchors beside their selected partners and a mixture")
    partners.add_argument("run", type=Path, help="folder of a run with partners")
    partners.add_argument("data", help="the run's training images")
    partners.add_argument("out", type=Path, help="PNG to write")
    for one in (views, partners):
        one.add_argument("--samples", type=int, default=8, help="rows of the sheet (default: 8)")
        one.add_argument("--seed", type=int, default=0, help="which samples and crops (default: 0)")
        one.add_argument("--force", action="store_true", help="replace a file that exists")
    return parser.parse_args(arguments)


def draw(options: argparse.Namespace) -> None:
    """Draws the sheet that the options ask for and writes it."""
    check_target(options.out, options.force)
    dataset = open_dataset(options.data, "none")  # damage is to be seen too
    count = min(options.samples, dataset.number)
    if options.kind == "views":
        name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
        method = build(options.method, resolve(options.method, name, backbone="resnet18", width=8))
        drawn = views_sheet(dataset, method.views, count, options.seed)
    else:
        pairing = newest_with_partners(options.run, dataset)
        query = method_of(read_config(options.run)).views[0]
        anchors = some_anchors(np.flatnonzero(pairing.count > 0), count, options.seed)
        drawn = partners_sheet(dataset, pairing, query, anchors, options.seed)
    with Staging(options.out) as staging:
        made = staging.folder / options.out.name
        drawn.save(made)
        sync_file(made)
        staging.commit([(made, options.out)], [])
    print(f"{options.out}: {drawn.width} x {drawn.height}")


def check_target(out: Path, force: bool) -> None:
    """Refuses a name that the picture cannot have, before anything is drawn.

    Raises:
        Failure: it is there.
    """
    if out.is_dir():
        raise Failure(f"{out} is a folder; name a file")
    if os.path.lexists(out) and not force:
        raise Failure(f"{out} exists and is left as it is; --force replaces it")


def newest_with_partners(run: Path, dataset: Dataset) -> Pairing:
    """The partners in a run's newest checkpoint.

    Raises:
        Failure: the run has no checkpoint or no partners, or was trained on other data.
    """
    found, notes = checkpoint.newest(run / "checkpoints")
    if found is None:
        raise Failure(notes[0] if notes else f"{run} holds no checkpoint; train it first")
    if found.state.get("data_checksum") != dataset.checksum:
        raise Failure(f"{run} was not trained on {dataset.path}; give the data of the run")
    if found.pairing is None or not (found.pairing.count > 0).any():
        raise Failure(
            f"{run} has selected no partners at step {found.state['step']}; train past the method's start epoch"
        )
    return found.pairing


if __name__ == "__main__":
    sys.exit(main())
