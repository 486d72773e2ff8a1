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
from tools.run.options import RunOptions

_FEATURE_BATCH = 512


@dataclass(frozen=True)
class DataPath:
    """What a run reads its images through.

    Attributes:
        loader: micro-batches of the method's views; an optimizer step takes `--accumulate` of them.
        whole_set: every training image once, in evaluation views.
        monitors: the quality of the features, and kNN where there are labels.
        steps_per_epoch: optimizer steps.
    """

    loader: Loader
    whole_set: Loader
    monitors: Monitors
    steps_per_epoch: int


def open_data_path(
    options: RunOptions,
    training: Training,
    dataset: Dataset,
    method: Method,
    accelerator: Accelerator,
    *,
    threads: int,
    resources: ExitStack,
    on_batch: Callable[[], object],
) -> DataPath:
    """Opens the loaders of a run.

    Args:
        threads: for decoding.
        resources: closes them.
        on_batch: called before each batch of a measurement or of the pass over the whole set; what it raises ends that.

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
        "threads": threads,
        "seed": options.seed,
    }
    micro_batch = training.batch_size // options.accumulate
    loader = make_loader(dataset, method.views, micro_batch, compile=options.compile, **loading)
    resources.enter_context(loader)
    loading["on_batch"] = on_batch
    view = evaluation(training.image_size, training.crop_ratio)
    whole_set = make_loader(dataset, [view], _FEATURE_BATCH, shuffle=False, drop_last=False, **loading)
    resources.enter_context(whole_set)
    monitors = Monitors(dataset, method, view, options.val_data, bank=options.knn_bank, check=options.verify, **loading)
    resources.enter_context(monitors)
    return DataPath(loader, whole_set, monitors, loader.steps // options.accumulate)
