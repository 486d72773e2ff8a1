"""The roads of a run's images: batches to train on, the whole set in order, and those that the monitors look at."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from models.evaluation.monitors import Monitors
from models.method import Method
from models.training.config import Training
from pipelines import Dataset, make_loader
from pipelines.loader import Loader
from pipelines.plan.views import evaluation
from tools.command_line import Failure
from tools.run.accelerator import DTYPES

_FEATURE_BATCH = 512


@dataclass(frozen=True)
class DataPath:
    """Attributes:
    loader: batches of the method's views; a step takes `--accumulate` of them.
    whole_set: every image once, in evaluation views.
    monitors: quality of the features, and kNN where there are labels.
    steps_per_epoch: optimizer steps.
    """

    loader: Loader
    whole_set: Loader
    monitors: Monitors
    steps_per_epoch: int


def open_data_path(
    options: Namespace, training: Training, dataset: Dataset, method: Method, accelerator: Accelerator, threads: int,
    open_parts: ExitStack, between: Callable[[], object],
) -> DataPath:  # fmt: skip
    """Opens all; `open_parts` closes them. `between` is called between the batches that are only looked at.

    Raises:
        Failure, ValueError, ModuleNotFoundError: data and options do not fit each other or this machine.
    """
    loading: dict[str, Any] = {
        "loader": options.loader, "device": accelerator.device, "dtype": DTYPES[options.precision],
        "rank": accelerator.process_index, "world": accelerator.num_processes,
        "threads": threads, "seed": options.seed,
    }  # fmt: skip
    part = training.batch_size // options.accumulate
    loader = open_parts.enter_context(make_loader(dataset, method.views, part, compile=options.compile, **loading))
    loading["between"] = between
    view = evaluation(training.image_size, training.image_keep)
    whole_set = open_parts.enter_context(
        make_loader(dataset, [view], _FEATURE_BATCH, shuffle=False, drop_last=False, **loading)
    )
    looking = (method, view, options.val_data, options.knn_bank, options.verify)
    monitors = open_parts.enter_context(Monitors(dataset, *looking, **loading))
    steps = loader.steps // options.accumulate
    if steps == 0:
        raise Failure(f"{dataset.number} images do not fill a batch of {training.batch_size}; lower --batch-size")
    return DataPath(loader, whole_set, monitors, steps)
