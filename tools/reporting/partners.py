"""The section of a report with CLIM's anchors, their partners and mixtures, at each checkpoint that was kept."""

from __future__ import annotations

import numpy as np

from models.storage.checkpoint import Checkpoint
from pipelines import Dataset
from tools.pictures.view_sheets import choose_anchors, partners_sheet
from tools.reporting.page import Section, as_picture
from tools.run.record import RunRecord, kept_checkpoints, method_of

_ANCHORS, _TIMES = 5, 4  # rows of a picture, and the largest number of checkpoints


def partners_section(record: RunRecord, dataset: Dataset, seed: int) -> Section | None:
    """Draw the same anchors at several checkpoints; return None for methods that select no partners."""
    if "refresh_epochs" not in record.config["recipe"]:
        return None
    title = "Anchors, partners and mixtures"
    kept = _distinct(kept_checkpoints(record.path))
    if not kept:
        return Section(title, "Left out: none of the kept checkpoints has partners.")
    paired = [found.pairing.count > 0 for found in kept if found.pairing is not None]
    anchors = choose_anchors(np.flatnonzero(np.logical_and.reduce(paired)), _ANCHORS, seed)
    if not len(anchors):
        return Section(title, "Left out: no image has a partner in every kept checkpoint.")
    query = method_of(record.config).views[0]
    pictures = []
    for found in kept:
        assert found.pairing is not None
        step = int(found.state["step"])
        drawn = partners_sheet(dataset, found.pairing, query, anchors, seed)
        pictures.append(as_picture(f"partners-{step:08d}.png", drawn, f"The partners in use at step {step:,}."))
    text = "The same anchors at several steps, up to five of the partners that each draws from, and a mixed query."
    if (dataset.labels >= 0).any():
        text += " A green frame means the anchor's class, a red one another class; the method does not see labels."
    return Section(title, text, tuple(pictures))


def _distinct(kept: list[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints whose partners differ from those before; of many, a few spread over the run."""
    found: list[Checkpoint] = []
    for one in kept:
        if one.pairing is None or not (one.pairing.count > 0).any():
            continue
        before = found[-1].pairing if found else None
        if before is None or not np.array_equal(before.pool, one.pairing.pool):
            found.append(one)
    chosen = np.linspace(0, len(found) - 1, min(_TIMES, len(found))).round().astype(int)
    return [found[index] for index in chosen]
