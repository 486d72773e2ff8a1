"""Loader and augmentation together, from stored JPEGs to normalised views, beside Pillow transforms in a DataLoader.

Two cases: MSVQ's four views (one strong, three weak) at 32 px, for which the DataLoader has decoded pictures in memory;
and two views of 224 px and four of 96 px of photos, all with MoCo v2's augmentation, for which it has JPEGs in memory.
`--data FILE` measures the case that fits the size of its images; otherwise images are generated for both cases.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import resolve
from models.methods.msvq import Settings as MsvqSettings
from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.plan.views import contrastive
from tools.benchmarks.loader import Images, converted
from tools.benchmarks.measure import Case, Settings, synchronize, take_turns
from tools.benchmarks.pillow_views import PillowViews, pictures_of, pillow_loader


@dataclass(frozen=True)
class Sizes:
    """The sizes of a case.

    Attributes:
        name: the title of the case.
        side: the side of the images, in pixels.
        number: the number of images.
        batches: the number of batches of one run.
    """

    name: str
    side: int
    number: int
    batch_size: int
    batches: int
    views: tuple[View, ...]


def msvq_views() -> tuple[View, ...]:
    """Return MSVQ's views in the CIFAR-10 recipe: one strong and three weak ones at 32 px."""
    settings = resolve("msvq", "cifar10").settings
    assert isinstance(settings, MsvqSettings)
    return (*settings.views(1), *[settings.weak(settings.weak_flip)] * 3)


def small() -> Sizes:
    return Sizes("MSVQ's four views at 32 px", 32, 12_000, 256, 40, msvq_views())


def large() -> Sizes:
    views = (contrastive(224),) * 2 + (contrastive(96, (0.05, 0.2)),) * 4
    return Sizes("2 x 224 + 4 x 96 px views of photos, all strong", 256, 1_200, 64, 16, views)


def cases(settings: Settings) -> Iterator[Case]:
    if settings.data is not None:
        dataset = open_dataset(settings.data)
        yield measure(small() if np.median(dataset.widths) <= 64 else large(), dataset, settings)
        return
    with tempfile.TemporaryDirectory() as folder:
        for sizes in (small(), large()):
            images = Images(sizes.name, sizes.side, sizes.number, sizes.batch_size, sizes.views)
            yield measure(sizes, converted(images, Path(folder)), settings)


def measure(sizes: Sizes, dataset: Dataset, settings: Settings) -> Case:
    """Measure the samples per second of short epochs.

    A run is a complete epoch, so that the threads and workers of a contender are idle while another one runs.
    """
    decoded = sizes.side <= 64
    data = PillowViews(pictures_of(dataset, decoded), sizes.views, dataset.mean, dataset.std)
    # The DataLoader is slower, so it gets fewer batches: a multiple of its workers.
    fewer = max(2, sizes.batches // 5) // settings.threads * settings.threads or settings.threads
    pillow = pillow_loader(data, sizes.batch_size, fewer, settings.threads)
    for _ in pillow:  # its workers must be forked before threads start
        pass

    def ours(dtype: torch.dtype) -> Callable[[], float]:
        loader = make_loader(
            dataset, sizes.views, sizes.batch_size, dtype=dtype, threads=settings.threads, device=settings.device
        )
        first = max(0, loader.steps - sizes.batches)
        next(iter(loader.epoch(0)))  # compiles
        return lambda: rate(loader.epoch(1, first), sizes.batch_size, settings.device)

    contenders = {
        "ours": ours(torch.bfloat16),
        "ours, float32": ours(torch.float32),
        f"Pillow in a DataLoader, {settings.threads} workers": lambda: rate(pillow, sizes.batch_size),
    }
    values = take_turns(contenders, settings.repeats)
    pictures = "decoded, in memory" if decoded else "JPEGs in memory"
    return Case(
        sizes.name, "samples/s", values, facts={"batch": sizes.batch_size, "the DataLoader's pictures": pictures}
    )


def rate(epoch: Iterable[Any], batch_size: int, device: str = "cpu") -> float:
    """Return the samples per second of an epoch, including its start."""
    synchronize(device)
    started, count = time.perf_counter(), 0
    for batch in epoch:
        count += batch_size
        del batch
    synchronize(device)
    return count / (time.perf_counter() - started)
