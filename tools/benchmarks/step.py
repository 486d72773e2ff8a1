"""A complete training step with loading, beside the same step on a batch that is ready, and beside plain code.

    pipeline efficiency   MSVQ and CLIM (32 and 24 px, every step mixed): what is left of the speed of the step alone
                          when the loader feeds it. It is the ratio "ours is better" of "batch already there".
    a whole step          MSVQ, beside MSVQ in plain PyTorch (`paper_msvq.py`) fed by Pillow transforms in a
                          DataLoader, and beside its four forward passes and one backward pass alone.

ResNet-18 at 32 px, batch size 256, bfloat16 (the plain code float32). On a small CPU such a step takes seconds, so a
run is two steps there. `--data FILE` measures on a converted data set instead of generated images.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import build, resolve
from models.method import Method
from pipelines import Batch, Dataset, make_loader, open_dataset
from pipelines.compiled import compile_hot_path
from pipelines.plan.pairing import Pairing
from tools.benchmarks.loader import Images, converted
from tools.benchmarks.measure import Case, Settings, synchronize, take_turns
from tools.benchmarks.paper_msvq import PaperMsvq
from tools.benchmarks.pillow_views import PillowViews, pictures_of, pillow_loader
from tools.run.standalone_step import StandaloneStep


@dataclass(frozen=True)
class Sizes:
    """The sizes of the network and of one run."""

    width: int = 64
    batch_size: int = 256
    steps: int = 2


def cases(settings: Settings) -> Iterator[Case]:
    sizes = Sizes() if settings.device == "cpu" else Sizes(steps=50)
    compile_hot_path(True)  # as train.py does
    with tempfile.TemporaryDirectory() as folder:
        if settings.data is None:
            dataset = converted(Images("", 32, 12_000, sizes.batch_size, ()), Path(folder))
        else:
            dataset = open_dataset(settings.data)
        yield against_plain_code(dataset, sizes, settings)
        for method in ("msvq", "clim"):
            yield efficiency(method, dataset, sizes, settings)


def efficiency(name: str, dataset: Dataset, sizes: Sizes, settings: Settings) -> Case:
    """Measure the samples per second with the loader and on a batch that is ready."""
    method, train = trainer(name, sizes, settings)
    batches = endless_batches(method, dataset, sizes, settings)
    ready = next(batches)
    train(ready)
    values = take_turns(
        {
            "data included": lambda: speed(train, batches, sizes, settings.device),
            "batch already there": lambda: speed(train, iter([ready] * sizes.steps), sizes, settings.device),
        },
        settings.repeats,
    )
    batches.close()
    case = Case(f"{name}: pipeline efficiency", "samples/s", values)
    facts = {"pipeline efficiency": round(case.ratio("batch already there"), 3), **_facts(sizes)}
    return Case(case.name, case.unit, values, facts=facts)


def against_plain_code(dataset: Dataset, sizes: Sizes, settings: Settings) -> Case:
    """Measure MSVQ's samples per second: ours, the plain code's, and those of forward and backward passes alone."""
    method, train = trainer("msvq", sizes, settings)
    data = PillowViews(pictures_of(dataset, decoded=True), method.views, dataset.mean, dataset.std)
    pillow = iter_forever(pillow_loader(data, sizes.batch_size, sizes.steps, settings.threads))
    plain = PaperMsvq(sizes.width)
    plain.to(settings.device)
    plain.step([view.to(settings.device) for view in next(pillow)])  # workers must be forked before threads start
    for _ in range(sizes.steps - 1):
        next(pillow)  # to the end of the epoch, after which the workers are idle
    batches = endless_batches(method, dataset, sizes, settings)
    ready = next(batches)
    alone = forward_and_backward(method, settings.device)
    train(ready)

    def plain_speed() -> float:
        return speed(lambda views: plain.step([v.to(settings.device) for v in views]), pillow, sizes, settings.device)

    values = take_turns(
        {
            "ours, data included": lambda: speed(train, batches, sizes, settings.device),
            "plain float32, Pillow in a DataLoader": plain_speed,
            "forward and backward alone": lambda: speed(alone, iter([ready] * sizes.steps), sizes, settings.device),
        },
        settings.repeats,
    )
    batches.close()
    return Case("msvq: a whole step", "samples/s", values, facts=_facts(sizes))


def endless_batches(method: Method, dataset: Dataset, sizes: Sizes, settings: Settings) -> Any:
    """Yield batches without end. CLIM's have random partners and are all mixed, the most that a loader can be asked."""
    pairing = None
    if len({view.size for view in method.views}) > 1:
        start, pool = np.arange(dataset.number), np.random.default_rng(0).permutation(dataset.number)
        pairing = Pairing(pool.astype(np.int32), start, np.ones(dataset.number, np.int32), 1.0, 1.0)
    loader = make_loader(
        dataset,
        method.views,
        sizes.batch_size,
        dtype=torch.bfloat16,
        threads=settings.threads,
        device=settings.device,
    )
    with loader:
        epoch = 0
        while True:
            yield from loader.epoch(epoch, pairing=pairing)
            epoch += 1


def trainer(name: str, sizes: Sizes, settings: Settings) -> tuple[Method, StandaloneStep]:
    """Return a method with its CIFAR-10 recipe, and its step as train.py makes it, compiled and recorded on a GPU."""
    torch.manual_seed(0)
    changed: dict[str, Any] = {"resolutions": (32, 24)} if name == "clim" else {}
    recipe = resolve(name, "cifar10", width=sizes.width, batch_size=sizes.batch_size, **changed)
    method, on_gpu = build(name, recipe), settings.device == "cuda"
    step = StandaloneStep(method, recipe, torch.device(settings.device), compiled=on_gpu, recorded=on_gpu)
    step.prepare()
    return method, step


def forward_and_backward(method: Method, device: str) -> Callable[[Batch], object]:
    """Return a function that makes the student's forward and backward pass and three forward passes of a teacher."""
    student = method.get_submodule("student")

    def passes(batch: Batch) -> object:
        with torch.autocast(device, torch.bfloat16):
            loss = student(batch.views[0]).float().square().mean()
            with torch.no_grad():
                for view in batch.views[1:]:
                    student(view)
        torch.autograd.backward(loss)
        student.zero_grad()
        return loss

    return passes


def speed(train: Callable[[Any], object], batches: Iterator[Any], sizes: Sizes, device: str) -> float:
    """Return the samples per second of one run. A loader's prefetch queue is full both before and after it."""
    synchronize(device)
    started = time.perf_counter()
    for batch in islice(batches, sizes.steps):
        train(batch)
    synchronize(device)
    return sizes.steps * sizes.batch_size / (time.perf_counter() - started)


def iter_forever(loader: Any) -> Iterator[Any]:
    """Yield the batches of endless epochs."""
    while True:
        yield from loader


def _facts(sizes: Sizes) -> dict[str, Any]:
    return {"network": f"ResNet-18, width {sizes.width}", "batch": sizes.batch_size, "steps a run": sizes.steps}
