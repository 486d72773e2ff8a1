"""CLIM's anchors with their partners and mixtures, at each checkpoint that the run has kept."""

from __future__ import annotations

import numpy as np

from models.storage.checkpoint import Checkpoint
from pipelines import Dataset
from tools.pictures.view_sheets import partners_sheet, some_anchors
from tools.reporting.page import Section, as_picture
from tools.run.record import RunRecord, kept_checkpoints, method_of

_ANCHORS, _TIMES = 5, 4


def partners_section(record: RunRecord, dataset: Dataset, seed: int) -> Section | None:
    """The same anchors at every time; None where the run's method selects no partners."""
    if "refresh_epochs" not in record.config["recipe"]:
        return None
    title = "Anchors, partners and mixtures"
    kept = _distinct(kept_checkpoints(record.path))
    if not kept:
        return Section(title, "Left out: no checkpoint that is kept has partners.")
    able = [found.pairing.count > 0 for found in kept if found.pairing is not None]
    anchors = some_anchors(np.flatnonzero(np.logical_and.reduce(able)), _ANCHORS, seed)
    if not len(anchors):
        return Section(title, "Left out: no image has a partner in every checkpoint that is kept.")
    query = method_of(record.config).views[0]
    pictures = []
    for found in kept:
        assert found.pairing is not None
        step = int(found.state["step"])
        drawn = partners_sheet(dataset, found.pairing, query, anchors, seed)
        pictures.append(as_picture(f"partners-{step:08d}.png", drawn, f"The partners in use at step {step:,}."))
    text = "The same anchors at each time, up to five of the partners that they draw from, and a mixed query."
    if (dataset.labels >= 0).any():
        text += " A green frame: the anchor's class, a red one: another; the method does not see it."
    return Section(title, text, tuple(pictures))


def _distinct(kept: list[Checkpoint]) -> list[Checkpoint]:
    """Those whose partners differ from the ones before; of many, a few spread over the run."""
    found: list[Checkpoint] = []
    for one in kept:
        if one.pairing is None or not (one.pairing.count > 0).any():
            continue
        before = found[-1].pairing if found else None
        if before is None or not np.array_equal(before.pool, one.pairing.pool):
            found.append(one)
    places = np.linspace(0, len(found) - 1, min(_TIMES, len(found))).round().astype(int)
    return [found[place] for place in places]
