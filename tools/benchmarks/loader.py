"""The loader: crops and flips of several views of each JPEG, uint8, from one .beton file made for the purpose.

Beside it FFCV's own Loader with one pipeline per view, which decodes (and compiles) once a view. "normalised" is what
training gets: the same views through the whole loader, as float32.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.beton import BetonExecutor
from pipelines.loader import cut_ahead
from pipelines.plan import Plan
from pipelines.prefetch import Prefetch
from tools.benchmarks.measure import Case, Settings, take_turns
from tools.sample_images import write_jpegs


@dataclass(frozen=True)
class Images:
    """Views of square JPEGs of one size."""

    name: str
    side: int
    number: int
    batch_size: int
    views: tuple[View, ...]


SMALL = Images("4 x 32 px views of 64 px JPEGs", 64, 12_000, 256, (View(32),) * 4)
LARGE = Images(
    "2 x 224 + 4 x 96 px views of 256 px JPEGs", 256, 1_200, 64, (View(224),) * 2 + (View(96, (0.05, 0.2)),) * 4
)


def cases(settings: Settings) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        for images in (SMALL, LARGE):
            yield measure(images, Path(folder), settings)


def measure(images: Images, folder: Path, settings: Settings) -> Case:
    """Samples per second of every contender, and how long each one's first batch takes."""
    dataset, threads = converted(images, folder), settings.threads
    epochs: dict[str, Callable[[int], Iterator[Any]]] = {}
    first_batch: dict[str, float] = {}
    started = time.perf_counter()
    epochs["ours"] = our_epochs(dataset, images, threads)
    next(iter(epochs["ours"](0)))
    first_batch["ours"] = round(time.perf_counter() - started, 2)
    with make_loader(dataset, images.views, images.batch_size, threads=threads) as loader:
        epochs["ours, normalised"] = loader.epoch
        try:
            started = time.perf_counter()
            epochs["FFCV Loader"] = stock_epochs(dataset, images, threads)
            for _ in epochs["FFCV Loader"](0):
                first_batch.setdefault("FFCV Loader", round(time.perf_counter() - started, 2))
        except ModuleNotFoundError as error:
            print(f"FFCV Loader is left out: {error}", file=sys.stderr)
            epochs.pop("FFCV Loader", None)
        rates = take_turns({name: rate(epoch, images, threads) for name, epoch in epochs.items()}, settings.repeats)
    return Case(images.name, "samples/s", rates, facts={"first_batch_s": first_batch})


def rate(epoch: Callable[[int], Iterator[Any]], images: Images, threads: int) -> Callable[[], float]:
    """A contender: samples/s of an epoch that it has not run yet."""
    count = 0

    def run() -> float:
        nonlocal count
        count += 1
        torch.set_num_threads(threads)  # FFCV's Loader changes it
        started, samples = time.perf_counter(), 0
        for batch in epoch(count):
            samples += images.batch_size
            del batch
        return samples / (time.perf_counter() - started)

    return run


def converted(images: Images, folder: Path) -> Dataset:
    """The images as a .beton, through the project's own conversion."""
    from tools.convert import main as convert

    source, target = folder / f"{images.side}", folder / f"{images.side}.beton"
    write_jpegs(source, images.number, images.side)
    if convert([str(source), str(target)]):
        raise RuntimeError(f"the benchmark's images could not be converted to {target}")
    return open_dataset(target)


def our_epochs(dataset: Dataset, images: Images, threads: int) -> Callable[[int], Iterator[Any]]:
    """Plan and executor behind the loader's prefetching, without the photometric part."""
    executor = BetonExecutor(dataset, images.views, threads)
    plan = Plan(dataset.heights, dataset.widths, images.views, images.batch_size)

    def epoch(number: int) -> Iterator[Any]:
        cut = cut_ahead(executor, lambda step: plan.batch(number, step), plan.steps)
        yield from Prefetch(lambda step: next(cut)[1], plan.steps, 2, torch.device("cpu"), iter)

    return epoch


def stock_epochs(dataset: Dataset, images: Images, threads: int) -> Callable[[int], Iterator[Any]]:
    """FFCV's Loader as its documentation makes several views: one pipeline for each."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.pipeline_spec import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, ToTensor, ToTorchImage

    pipelines: dict[str, Any] = {"label": None, "image": None}
    for number, view in enumerate(images.views):
        assert view.scale is not None
        decoder = RandomResizedCropRGBImageDecoder((view.size, view.size), scale=view.scale, ratio=view.ratio)
        steps = [RandomHorizontalFlip(view.flip), ToTensor(), ToTorchImage()]
        pipelines[f"view{number}"] = PipelineSpec("image", decoder=decoder, transforms=steps)
    loader = Loader(
        str(dataset.path), images.batch_size, num_workers=threads, order=OrderOption.RANDOM, drop_last=True,
        os_cache=True, pipelines=pipelines,
    )  # fmt: skip
    return lambda number: iter(loader)
