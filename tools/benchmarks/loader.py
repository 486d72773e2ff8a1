"""The loader: crops and flips of several views of each JPEG, from one .beton to uint8 on the device.

Ours with each executor, by area and by Pillow's bilinear filter, prefetching included, beside what the two libraries
offer for several views of an image:

    FFCV Loader     one pipeline for each view, which decodes the image (and compiles) for each view
    DALI a view     one decode of a random region (`image_random_crop`) and one resize for each view

"ours, normalised" is what training gets: the views of the first executor through the complete loader, as float32. With
`--data` the views are cut from that data set, otherwise from generated JPEGs. On a GPU, DALI decodes there ("mixed").
Memory is what a contender takes until its first epoch is over: of the GPU, including the pools of libraries, or of the
process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.augmentation.augment import make_augment
from pipelines.executors.choose import EXECUTORS, make_executor
from pipelines.executors.executor import Decoded
from pipelines.executors.resident import decoded_bytes
from pipelines.loader import cut_ahead
from pipelines.plan.plan import Plan
from pipelines.prefetch import Prefetch
from pipelines.transfer import to_device_together
from tools.benchmarks.measure import Case, Settings, peak_memory, synchronize, take_turns
from tools.benchmarks.reference_loaders import dali_epochs, ffcv_epochs
from tools.conversion.convert import convert
from tools.conversion.options import parse
from tools.conversion.synthetic_images import write_jpegs

Epochs = Callable[[int], Iterator[Any]]  # the number of an epoch -> its batches


@dataclass(frozen=True)
class Images:
    """Generated square JPEGs, and the views that are cut from them.

    Attributes:
        name: what the views are, for the title of the case.
        side: the side of the JPEGs, in pixels.
        number: the number of JPEGs.
    """

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


def measure(
    images: Images, dataset: Dataset, settings: Settings, wanted: Callable[[str], bool] = lambda name: True
) -> Case:
    """Measure the samples per second of each contender, its memory, and the time until its first batch.

    Args:
        wanted: whether to measure a contender, by its name.
    """
    device = torch.device(settings.device)
    contenders: dict[str, Callable[[], float]] = {}
    first_batch: dict[str, float] = {}
    memory: dict[str, float] = {}
    makers: dict[str, Callable[[ExitStack], Epochs]] = {
        **{
            f"ours, {name}{suffix}": our_epochs(name, dataset, plan_of(images, dataset, resize), settings)
            for name in EXECUTORS
            for resize, suffix in (("area", ""), ("bilinear", ", bilinear"))
        },
        "ours, normalised": normalised_epochs(images, dataset, settings),
        "FFCV Loader": lambda stack: ffcv_epochs(dataset, images.views, images.batch_size, settings.threads, device),
        "DALI a view": lambda stack: dali_epochs(dataset, images.views, images.batch_size, settings.threads, device),
    }
    with ExitStack() as stack:
        for name, make in makers.items():
            if not wanted(name):
                continue

            def begin(name: str = name, make: Callable[[ExitStack], Epochs] = make) -> None:
                started, epochs = time.perf_counter(), make(stack)
                for batch in epochs(0):  # to its end, because FFCV's Loader fails if an epoch is left early
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


def plan_of(images: Images, dataset: Dataset, resize: str) -> Plan:
    """Return the plan of the views, resized by a filter."""
    views = tuple(replace(view, resize=resize) for view in images.views)
    return Plan(dataset.heights, dataset.widths, views, images.batch_size)


def memory_taken(function: Callable[[], None], device: torch.device) -> float:
    """Return the MiB of GPU memory that a call takes and keeps; on a CPU, the MiB that it takes at its peak."""
    if device.type == "cpu":
        return peak_memory(function)
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info(device)[0]
    function()
    return (before - torch.cuda.mem_get_info(device)[0]) / 2**20


def rate(epochs: Epochs, images: Images, settings: Settings) -> Callable[[], float]:
    """Return a contender that runs the next epoch and returns its samples/s."""
    count = 0

    def run() -> float:
        nonlocal count
        count += 1
        torch.set_num_threads(settings.threads)  # FFCV's Loader changes this number
        synchronize(settings.device)
        started, samples = time.perf_counter(), 0
        for batch in epochs(count):
            samples += images.batch_size
            del batch
        synchronize(settings.device)
        return samples / (time.perf_counter() - started)

    return run


def our_epochs(name: str, dataset: Dataset, plan: Plan, settings: Settings) -> Callable[[ExitStack], Epochs]:
    """Return what opens an executor behind the loader's prefetching, without photometric augmentation.

    Where Triton cuts, it normalises as well.
    """

    def make(stack: ExitStack) -> Epochs:
        device = torch.device(settings.device)
        executor, _ = make_executor(name, dataset, plan, device, settings.threads)
        stack.callback(executor.close)
        cutter = make_augment(plan.views, dataset.mean, dataset.std, device)
        stack.callback(cutter.close)

        def epoch(number: int) -> Iterator[Any]:
            cut = cut_ahead(executor, lambda step: plan.batch(number, step), plan.steps)

            def views(step: int) -> Sequence[torch.Tensor]:
                batch, images = next(cut)
                if isinstance(images, Decoded):
                    return cutter(images, to_device_together(cutter.numbers(images, batch), device))
                return [view.to(device, non_blocking=True) for view in images]

            yield from Prefetch(views, plan.steps, 2, device, iter)

        return epoch

    return make


def normalised_epochs(images: Images, dataset: Dataset, settings: Settings) -> Callable[[ExitStack], Epochs]:
    """Return what opens the complete loader with the executor ffcv."""

    def make(stack: ExitStack) -> Epochs:
        loading: dict[str, Any] = {"loader": "ffcv", "device": settings.device, "threads": settings.threads}
        return stack.enter_context(make_loader(dataset, images.views, images.batch_size, **loading)).epoch

    return make


def converted(images: Images, folder: Path) -> Dataset:
    """Generate the JPEGs and convert them to a .beton in `folder`."""
    source, target = folder / f"{images.side}", folder / f"{images.side}.beton"
    write_jpegs(source, images.number, images.side)
    convert(parse([str(source), str(target)]))
    return open_dataset(target)
