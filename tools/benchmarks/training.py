"""A training step and the batches that feed it, for whatever times them: `step.py` and the stages of a GPU check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from models import build
from models.methods.recipes import Recipe
from pipelines import Batch, Dataset, View, make_loader
from pipelines.loader import Loader
from pipelines.plan.pairing import Pairing
from tools.benchmarks.measure import Settings, synchronize
from tools.run.recordings import Recorder
from tools.run.standalone_step import StandaloneStep
from tools.run.tuning import TUNING, Tuning


def make_step(
    recipe: Recipe, settings: Settings, compiled: bool, recorder: Recorder | None, tuning: Tuning = TUNING
) -> StandaloneStep:
    """Return the training step of a recipe, as train.py makes it in bfloat16; not prepared yet."""
    torch.manual_seed(0)
    device = torch.device(settings.device)
    method = build(recipe.method, recipe)
    return StandaloneStep(method, recipe, device, compiled=compiled, recorder=recorder, tuning=tuning)


def open_loader(
    dataset: Dataset, views: tuple[View, ...], batch_size: int, settings: Settings, loader: str = "auto"
) -> Loader:
    """Return a loader as train.py makes it for training in bfloat16."""
    return make_loader(
        dataset,
        views,
        batch_size,
        loader=loader,
        dtype=torch.bfloat16,
        threads=settings.threads,
        device=settings.device,
    )


def random_partners(number: int) -> Pairing:
    """Return one random partner for each image, in every batch: the most that CLIM can ask of a loader."""
    start, pool = np.arange(number), np.random.default_rng(0).permutation(number)
    return Pairing(pool.astype(np.int32), start, np.ones(number, np.int32), 1.0, 1.0)


def endless(loader: Loader, pairing: Pairing | None = None) -> Iterator[Batch]:
    """Yield the batches of endless epochs. Closing the iterator ends the loader's thread."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch, pairing=pairing)
        epoch += 1


def speed(
    train: Callable[[Any], object], batches: Iterator[Any], steps: int, batch_size: int, device: str = "cpu"
) -> float:
    """Return the samples per second of one run of `steps` steps.

    A loader's prefetch queue is as full before the run as after it, if the loader was used right before.
    """
    synchronize(device)
    started = time.perf_counter()
    for batch in islice(batches, steps):
        train(batch)
    synchronize(device)
    return steps * batch_size / (time.perf_counter() - started)
