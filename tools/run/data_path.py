"""The data loaders of a run: batches to train on, one pass over the whole set, and the monitors' images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from models.evaluation.monitors import Monitors
from models.method import Method
from models.training.config import Training
from models.training.precision import DTYPES
from pipelines import Dataset, make_loader
from pipelines.loader import Loader
from pipelines.plan.global_batch import check_enough_images, check_global_batch
from pipelines.plan.views import evaluation
from pipelines.threads import share_of_cores
from tools.run.options import RunOptions

_FEATURE_BATCH = 512  # images of a batch of `full_pass`


@dataclass(frozen=True)
class DataPath:
    """Everything through which a run reads images.

    Attributes:
        loader: micro-batches of the method's views; an optimizer step takes `--accumulate` of them.
        full_pass: every training image once, in evaluation views, for methods that select partners.
        monitors: the evaluations during training: quality of the features and, if there are labels, kNN.
        steps_per_epoch: the number of optimizer steps of an epoch.
    """

    loader: Loader
    full_pass: Loader
    monitors: Monitors
    steps_per_epoch: int


def open_data_path(
    options: RunOptions,
    training: Training,
    dataset: Dataset,
    method: Method,
    accelerator: Accelerator,
    resources: ExitStack,
    on_batch: Callable[[], object],
) -> DataPath:
    """Open the loaders of a run.

    Args:
        resources: the stack that closes the loaders.
        on_batch: called before each batch of `full_pass` and of the monitors; the pass ends if it raises an exception.

    Raises:
        ValueError, ModuleNotFoundError: data and options do not fit each other or this machine.
    """
    check_global_batch(
        training.batch_size,
        micro_batches=options.accumulate,
        processes=accelerator.num_processes,
        norm_groups=training.bn_splits,
    )
    check_enough_images(dataset.number, training.batch_size)
    loading: dict[str, Any] = {
        "loader": options.loader,
        "device": accelerator.device,
        "dtype": DTYPES[options.precision],
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
        "threads": share_of_cores(options.threads),
        "seed": options.seed,
    }
    micro_batch = training.batch_size // options.accumulate
    fill_to = training.batch_size if training.fill_last_batch else 0
    loader = make_loader(dataset, method.views, micro_batch, compile=options.compile, fill_to=fill_to, **loading)
    resources.enter_context(loader)
    loading["on_batch"] = on_batch
    view = evaluation(training.image_size, training.crop_ratio)
    full_pass = make_loader(dataset, [view], _FEATURE_BATCH, shuffle=False, drop_last=False, **loading)
    resources.enter_context(full_pass)
    monitors = Monitors(dataset, method, view, options.val_data, bank=options.knn_bank, check=options.verify, **loading)
    resources.enter_context(monitors)
    return DataPath(loader, full_pass, monitors, loader.steps // options.accumulate)
