"""Every image of a data set through every executor: what fuzzing looks at after a file was opened."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.executors.choose import make_executor
from pipelines.executors.damage import GREY, DecodeError
from pipelines.executors.executor import as_views
from pipelines.formats.dataset import Dataset
from pipelines.plan.plan import Plan
from pipelines.plan.views import View, evaluation

BATCH = 16
_VIEWS = (View(16), View(8, (0.1, 0.5)), evaluation(12))
_CPU = torch.device("cpu")


class Cut(NamedTuple):
    """What came of a pass.

    Attributes:
        views: [N, P] uint8, all pixels of each image's views; None where no image of a batch could be decoded.
        replaced: numbers of the images in whose place came grey ones.
    """

    views: NDArray[np.uint8] | None
    replaced: set[int]


def cut(dataset: Dataset, loader: str) -> Cut:
    """One pass in the data set's order, on one thread.

    Raises:
        ValueError: the executor refuses the data set.
    """
    plan = Plan(dataset.heights, dataset.widths, _VIEWS, min(BATCH, dataset.number), shuffle=False, drop_last=False)
    executor, _ = make_executor(loader, dataset, plan, _CPU, threads=1)
    rows = []
    try:
        for step in range(plan.steps):
            batch = plan.batch(0, step)
            views = as_views(executor.start(batch)())
            rows.append(torch.cat([view.reshape(len(view), -1) for view in views], dim=1)[: batch.count].numpy())
        return Cut(np.concatenate(rows), set(executor.damage.numbers))
    except DecodeError:
        return Cut(None, set(executor.damage.numbers))
    finally:
        executor.close()


def wrong(made: Cut, again: Cut, untouched: dict[int, NDArray[np.uint8]]) -> str:
    """What is silently wrong with a pass, or nothing.

    Args:
        again: the same pass once more; memory that no decoder wrote differs between them.
        untouched: the rows of images whose files were not harmed, by number.
    """
    if made.views is None or again.views is None:
        return "" if made.views is again.views else "two passes differ"
    if not np.array_equal(made.views, again.views):
        return "two passes differ"
    for number in made.replaced:
        if (made.views[number] != GREY).any():
            return f"image {number} counts as replaced and is not grey"
    for number, row in untouched.items():
        if not np.array_equal(made.views[number], row):
            return f"image {number}, which nobody harmed, came out differently"
    return ""
