"""Pictures of what a method is shown.

    python -m tools.preview views data/photos.beton views.png --method clim        the views that a recipe makes
    python -m tools.preview partners runs/clim-photos data/photos.beton pairs.png  anchors beside their partners

Everything comes through the training's own loader. Partners have a green frame where their label is the anchor's, a red
one where it is another, none where labels are missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models import build, resolve
from models.losses.mixture import cutmix
from models.methods.recipes import recipe_for
from models.methods.registry import REGISTRY
from models.storage import checkpoint
from models.storage.atomic_files import sync_file
from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.executors.damage import DecodeError
from pipelines.plan.pairing import Pairing
from pipelines.plan.views import evaluation
from tools.pictures.contact_sheet import CELL, Cell, frame, picture, pictures, sheet
from tools.run.options import Failure, OneLineParser
from tools.run.record import method_of, read_config
from tools.staging import Staging


def main(arguments: Sequence[str] | None = None) -> int:
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
    try:
        options = parser.parse_args(arguments)
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
        with Staging(options.out) as place:
            made = place.folder / options.out.name
            drawn.save(made)
            sync_file(made)
            place.commit([(made, options.out)], [])
    except (Failure, ValueError, OSError, ModuleNotFoundError, DecodeError) as error:
        print(f"tools.preview: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {drawn.width} x {drawn.height}")
    return 0


def check_target(out: Path, force: bool) -> None:
    """Refuses a name that the picture cannot have, before anything is drawn.

    Raises:
        Failure: it is there.
    """
    if out.is_dir():
        raise Failure(f"{out} is a folder; name a file")
    if os.path.lexists(out) and not force:
        raise Failure(f"{out} exists and is left as it is; --force replaces it")


def views_sheet(dataset: Dataset, views: Sequence[View], count: int, seed: int, epoch: int = 0) -> Image.Image:
    """One row per sample: the whole image, then every view as `epoch` draws it."""
    chosen = np.sort(np.random.default_rng(seed).choice(dataset.number, count, replace=False))
    whole = pictures(dataset, evaluation(CELL), chosen)
    with make_loader(dataset, views, count, subset=chosen, shuffle=False, seed=seed) as loader:
        batch = next(iter(loader.epoch(epoch)))
    rows = [[Cell(whole[n]), *(Cell(picture(view[n], dataset)) for view in batch.views)] for n in range(count)]
    return sheet(rows, ["image"] + [f"view {n + 1}: {view.size} px" for n, view in enumerate(views)])


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


def some_anchors(able_M: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` samples of those that have partners, ascending."""
    chosen = np.random.default_rng(seed).choice(able_M, min(count, len(able_M)), replace=False)
    return np.sort(chosen).astype(np.int64)


def partners_sheet(
    dataset: Dataset, pairing: Pairing, query: View, anchors: NDArray[np.int64], seed: int
) -> Image.Image:
    """One row per anchor: the anchor, up to five of its partners, and a query mixed from anchor and partner."""
    pairing = replace(pairing, mix_probability=1.0)
    chosen = [pairing.pool[pairing.start[i] : pairing.start[i] + pairing.count[i]][:5] for i in anchors]
    flat = np.unique(np.concatenate([anchors, *chosen])).astype(np.int64)
    shown = dict(zip(flat.tolist(), pictures(dataset, evaluation(CELL), flat), strict=True))

    with make_loader(dataset, [query], len(anchors), subset=anchors, shuffle=False, seed=seed) as loader:
        batch = next(iter(loader.epoch(1, pairing=pairing)))
    assert batch.partner is not None and batch.box is not None
    mixed, kept_B = cutmix(batch.views[0], batch.partner.views[0], batch.box)

    labels = dataset.labels
    rows: list[list[Cell | None]] = []
    for n, anchor in enumerate(anchors.tolist()):
        partners: list[Cell | None] = [Cell(shown[int(j)], frame(labels[anchor], labels[j])) for j in chosen[n]]
        empty: list[Cell | None] = [None] * (5 - len(partners))
        rows.append([Cell(shown[anchor]), *partners, *empty, Cell(picture(mixed[n], dataset))])
    return sheet(rows, ["anchor", *[f"partner {n}" for n in range(1, 6)], f"mixed, keeps {float(kept_B[0]):.0%}"])


if __name__ == "__main__":
    sys.exit(main())
