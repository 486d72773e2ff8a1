"""The loader: crops and flips of several views of each JPEG, as uint8 on the device, from one .beton.

Ours, with each executor and with prefetching, beside what the two libraries offer for several views:

    FFCV Loader     one pipeline a view, which decodes (and compiles) once a view
    DALI a view     one decode of a random part of the image (`image_random_crop`) and one resize a view

"normalised" is what training gets: the first executor's views through the whole loader, as float32. With `--data` the
views are cut from that data set, else from JPEGs made for the purpose. On a GPU DALI decodes there ("mixed"). Memory
is what a contender takes until its first epoch is over: the GPU's, libraries' own pools included, or the process's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.executors.choose import EXECUTORS, make_executor
from pipelines.executors.resident import decoded_bytes
from pipelines.loader import cut_ahead
from pipelines.plan.plan import Plan
from pipelines.prefetch import Prefetch
from tools.benchmarks.measure import Case, Settings, peak_memory, synchronize, take_turns
from tools.benchmarks.stock_loaders import dali_epochs, ffcv_epochs
from tools.conversion.convert import convert
from tools.conversion.options import parse
from tools.conversion.synthetic_images import write_jpegs

Epochs = Callable[[int], Iterator[Any]]


@dataclass(frozen=True)
class Images:
    """Views of square JPEGs of one size."""

    name: str
    side: int
    number: int
    batch_size: int
    views: tuple[View, ...]


SMALL = Images("2 x 32 px views", 32, 12_000, 256, (View(32),) * 2)
LARGE = Images("2 x 224 + 4 x 96 px views", 256, 1_200, 64, (View(224),) * 2 + (View(96, (0.05, 0.2)),) * 4)


def cases(settings: Settings) -> Iterator[Case]:
    if settings.data is not None:
        dataset = open_dataset(settings.data)
        yield measure(SMALL if float(np.median(dataset.widths)) <= 64 else LARGE, dataset, settings)
        return
    with tempfile.TemporaryDirectory() as folder:
        for images in (SMALL, LARGE):
            yield measure(images, converted(images, Path(folder)), settings)


def measure(images: Images, dataset: Dataset, settings: Settings) -> Case:
    """Samples per second of every contender, and how long each one's first batch takes."""
    device = torch.device(settings.device)
    contenders: dict[str, Callable[[], float]] = {}
    first_batch: dict[str, float] = {}
    memory: dict[str, float] = {}
    plan = Plan(dataset.heights, dataset.widths, images.views, images.batch_size)
    size = (images.views, images.batch_size, settings.threads, device)
    makers: dict[str, Callable[[ExitStack], Epochs]] = {
        **{f"ours, {name}": our_epochs(name, dataset, plan, settings) for name in EXECUTORS},
        "ours, normalised": lambda stack: (
            stack.enter_context(
                make_loader(
                    dataset, images.views, images.batch_size, loader="ffcv", device=device, threads=settings.threads
                )
            ).epoch
        ),
        "FFCV Loader": lambda stack: ffcv_epochs(dataset, *size),
        "DALI a view": lambda stack: dali_epochs(dataset, *size),
    }
    with ExitStack() as stack:
        for name, make in makers.items():

            def begin(name: str = name, make: Callable[[ExitStack], Epochs] = make) -> None:
                started, epochs = time.perf_counter(), make(stack)
                for batch in epochs(0):  # to its end: FFCV's Loader does not take it well when one leaves
                    synchronize(settings.device)
                    first_batch.setdefault(name, round(time.perf_counter() - started, 2))
                    del batch
                contenders[name] = rate(epochs, images, settings)

            try:
                memory[name] = memory_taken(begin, device)
            except ModuleNotFoundError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
        rates = take_turns(contenders, settings.repeats)
    sides = f"{np.median(dataset.heights):g} x {np.median(dataset.widths):g}"
    name = f"{images.name} of {dataset.number:,} images of {sides} (medians)"
    facts = {"first_batch_s": first_batch, "resident_set_mib": round(decoded_bytes(dataset) / 2**20, 1)}
    return Case(name, "samples/s", rates, memory, facts)


def memory_taken(function: Callable[[], None], device: torch.device) -> float:
    """MiB that are gone after a call; on a CPU, at its peak."""
    if device.type == "cpu":
        return peak_memory(function)
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info(device)[0]
    function()
    return (before - torch.cuda.mem_get_info(device)[0]) / 2**20


def rate(epochs: Epochs, images: Images, settings: Settings) -> Callable[[], float]:
    """A contender: samples/s of an epoch that it has not run yet."""
    count = 0

    def run() -> float:
        nonlocal count
        count += 1
        torch.set_num_threads(settings.threads)  # FFCV's Loader changes it
        synchronize(settings.device)
        started, samples = time.perf_counter(), 0
        for batch in epochs(count):
            samples += images.batch_size
            del batch
        synchronize(settings.device)
        return samples / (time.perf_counter() - started)

    return run


def our_epochs(name: str, dataset: Dataset, plan: Plan, settings: Settings) -> Callable[[ExitStack], Epochs]:
    """Plan and executor behind the loader's prefetching, without the photometric part."""

    def make(stack: ExitStack) -> Epochs:
        device = torch.device(settings.device)
        executor, _ = make_executor(name, dataset, plan, device, settings.threads)
        stack.callback(executor.close)

        def epoch(number: int) -> Iterator[Any]:
            cut = cut_ahead(executor, lambda step: plan.batch(number, step), plan.steps)

            def views(step: int) -> list[torch.Tensor]:
                return [view.to(device, non_blocking=True) for view in next(cut)[1]]

            yield from Prefetch(views, plan.steps, 2, device, iter)

        return epoch

    return make


def converted(images: Images, folder: Path) -> Dataset:
    """The images as a .beton, through the project's own conversion."""
    source, target = folder / f"{images.side}", folder / f"{images.side}.beton"
    write_jpegs(source, images.number, images.side)
    convert(parse([str(source), str(target)]))
    return open_dataset(target)
