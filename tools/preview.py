"""Pictures of what a method is shown.

    python -m tools.preview views data/photos.beton views.png --method clim        the views that a recipe makes
    python -m tools.preview partners runs/clim-photos data/photos.beton pairs.png  anchors beside their partners

Everything comes through the training's own loader. Partners have a green frame where their label is the anchor's, a red
one where it is another, none where labels are missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from models import build, checkpoint, resolve
from models.mixture import cutmix
from models.recipes import recipe_for
from models.registry import REGISTRY
from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.damage import DecodeError
from pipelines.views import evaluation
from tools.options import Failure, OneLineParser

_CELL, _GAP, _TOP = 112, 6, 18
_SAME, _OTHER, _PAPER, _INK = (40, 160, 70), (210, 50, 50), (255, 255, 255), (30, 30, 30)

Cell = tuple[Image.Image, tuple[int, int, int] | None]


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
    try:
        options = parser.parse_args(arguments)
        dataset = open_dataset(options.data)
        count = min(options.samples, dataset.number)
        if options.kind == "views":
            name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
            sheet = views_sheet(dataset, options.method, name, count, options.seed)
        else:
            sheet = partners_sheet(dataset, options.run, count, options.seed)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(options.out)
    except (Failure, ValueError, OSError, ModuleNotFoundError, DecodeError) as error:
        print(f"tools.preview: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {sheet.width} x {sheet.height}")
    return 0


def views_sheet(dataset: Dataset, method: str, recipe: str, count: int, seed: int) -> Image.Image:
    """One row per sample: the whole image, then every view of the method."""
    views = build(method, resolve(method, recipe, backbone="resnet18", width=8)).views
    chosen = np.random.default_rng(seed).choice(dataset.number, count, replace=False)
    whole = _images(dataset, evaluation(_CELL), chosen)
    with make_loader(dataset, views, count, subset=chosen, shuffle=False, seed=seed) as loader:
        batch = next(iter(loader.epoch(0)))
    rows: list[list[Cell]] = [
        [(whole[n], None), *((_image(view[n], dataset), None) for view in batch.views)] for n in range(count)
    ]
    return _sheet(rows, ["image"] + [f"view {n + 1}: {view.size} px" for n, view in enumerate(views)])


def partners_sheet(dataset: Dataset, run: Path, count: int, seed: int) -> Image.Image:
    """One row per anchor: the anchor, up to five of its partners, and a query mixed from anchor and partner.

    Raises:
        Failure: the run has no checkpoint or no partners, or was trained on other data.
    """
    found, _ = checkpoint.newest(run / "checkpoints")
    if found is None:
        raise Failure(f"{run} holds no checkpoint; train it first")
    if found.state["data_checksum"] != dataset.checksum:
        raise Failure(f"{run} was not trained on {dataset.path}; give the data of the run")
    if found.pairing is None or not (found.pairing.count > 0).any():
        raise Failure(
            f"{run} has selected no partners at step {found.state['step']}; train past the method's start epoch"
        )
    pairing = replace(found.pairing, mix_probability=1.0)
    rng = np.random.default_rng(seed)
    with_partners = np.flatnonzero(pairing.count > 0)
    anchors = np.sort(rng.choice(with_partners, min(count, len(with_partners)), replace=False))
    chosen = [pairing.pool[pairing.start[i] : pairing.start[i] + pairing.count[i]][:5] for i in anchors]
    flat = np.unique(np.concatenate([anchors, *chosen]))
    pictures = dict(zip(flat.tolist(), _images(dataset, evaluation(_CELL), flat.astype(np.int64)), strict=True))

    query = _views_of(run)[0]
    with make_loader(dataset, [query], len(anchors), subset=anchors, shuffle=False, seed=seed) as loader:
        batch = next(iter(loader.epoch(1, pairing=pairing)))
    assert batch.partner is not None and batch.box is not None
    mixed, kept_B = cutmix(batch.views[0], batch.partner.views[0], batch.box)

    rows: list[list[Cell]] = []
    for n, anchor in enumerate(anchors):
        row: list[Cell] = [(pictures[int(anchor)], None)]
        row += [(pictures[int(j)], _frame(dataset.labels[anchor], dataset.labels[j])) for j in chosen[n]]
        row += [(Image.new("RGB", (_CELL, _CELL), _PAPER), None)] * (6 - len(row))
        rows.append([*row, (_image(mixed[n], dataset), None)])
    return _sheet(rows, ["anchor", *[f"partner {n}" for n in range(1, 6)], f"mixed, keeps {float(kept_B[0]):.0%}"])


def _views_of(run: Path) -> tuple[View, ...]:
    """The views that a run was trained with."""
    config = json.loads((run / "config.json").read_text())
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config["recipe"].items()}
    return build(config["method"], resolve(config["method"], config["recipe_name"], **values)).views


def _frame(first: int, second: int) -> tuple[int, int, int] | None:
    if min(first, second) < 0:
        return None
    return _SAME if first == second else _OTHER


def _images(dataset: Dataset, view: View, numbers: NDArray[np.int64]) -> list[Image.Image]:
    """Samples as they are stored, cut to a square."""
    with make_loader(dataset, [view], len(numbers), subset=numbers, shuffle=False, drop_last=False) as loader:
        batch = next(iter(loader.epoch(0)))
    return [_image(picture, dataset) for picture in batch.views[0]]


def _image(view: Tensor, dataset: Dataset) -> Image.Image:
    """A normalised view [3, s, s] as a picture of the sheet's cell size."""
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    pixels = (view.float().cpu().permute(1, 2, 0) * std + mean).clamp(0, 1) * 255
    picture = Image.fromarray(pixels.round().to(torch.uint8).numpy())
    # Small views are enlarged by whole pixels, so that one sees what the network gets.
    return picture.resize(
        (_CELL, _CELL), Image.Resampling.NEAREST if picture.width < _CELL else Image.Resampling.LANCZOS
    )


def _sheet(rows: list[list[Cell]], titles: list[str]) -> Image.Image:
    step = _CELL + _GAP
    sheet = Image.new("RGB", (len(titles) * step + _GAP, len(rows) * step + _GAP + _TOP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * step, 4), title, fill=_INK)
    for n, row in enumerate(rows):
        for column, (picture, frame) in enumerate(row):
            corner = (_GAP + column * step, _TOP + _GAP + n * step)
            sheet.paste(picture, corner)
            if frame is not None:
                box = (corner[0] - 2, corner[1] - 2, corner[0] + _CELL + 1, corner[1] + _CELL + 1)
                draw.rectangle(box, outline=frame, width=3)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
