"""Contact sheets of a method's views, and of anchors beside their partners.

B anchors, M candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.losses.mixture import cutmix
from pipelines import Dataset, View, make_loader
from pipelines.plan.pairing import Pairing
from pipelines.plan.views import evaluation
from tools.pictures.contact_sheet import CELL, Cell, frame, picture, pictures, sheet


def views_sheet(dataset: Dataset, views: Sequence[View], count: int, seed: int, epoch: int = 0) -> Image.Image:
    """Draw one row per sample: the complete image, then each view as it is in `epoch`."""
    chosen = np.sort(np.random.default_rng(seed).choice(dataset.number, count, replace=False))
    complete = pictures(dataset, evaluation(CELL), chosen)
    with make_loader(dataset, views, count, subset=chosen, shuffle=False, seed=seed) as loader:
        batch = next(iter(loader.epoch(epoch)))
    rows = [[Cell(complete[n]), *(Cell(picture(view[n], dataset)) for view in batch.views)] for n in range(count)]
    return sheet(rows, ["image"] + [f"view {n + 1}: {view.size} px" for n, view in enumerate(views)])


def choose_anchors(candidates_M: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """Draw at most `count` of the samples that have partners; return them in ascending order."""
    chosen = np.random.default_rng(seed).choice(candidates_M, min(count, len(candidates_M)), replace=False)
    return np.sort(chosen).astype(np.int64)


def partners_sheet(
    dataset: Dataset, pairing: Pairing, query: View, anchors: NDArray[np.int64], seed: int
) -> Image.Image:
    """Draw one row per anchor: the anchor, up to five of its partners, and a query mixed of anchor and partner.

    Args:
        query: the view of the mixed query.
        anchors: numbers in the data set, ascending.
    """
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
