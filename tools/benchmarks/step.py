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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from models import build, resolve
from models.method import Method
from models.methods.recipes import Recipe
from pipelines import Batch, Dataset, open_dataset
from pipelines.compiled import compile_hot_path
from tools.benchmarks.loader import Images, converted
from tools.benchmarks.measure import Case, Settings, take_turns
from tools.benchmarks.paper_msvq import PaperMsvq
from tools.benchmarks.pillow_views import PillowViews, pictures_of, pillow_loader
from tools.benchmarks.training import endless, make_step, open_loader, random_partners, speed
from tools.run.recordings import CudaGraphs
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
    train = prepared(recipe_of(name, sizes), settings)
    partners = random_partners(dataset.number) if train.method.mixes else None
    with open_loader(dataset, train.method.views, sizes.batch_size, settings) as loader:
        batches = endless(loader, partners)
        ready = next(batches)
        train(ready)
        values = take_turns(
            {
                "data included": lambda: speed(train, batches, sizes.steps, sizes.batch_size, settings.device),
                "batch already there": lambda: speed(
                    train, iter([ready] * sizes.steps), sizes.steps, sizes.batch_size, settings.device
                ),
            },
            settings.repeats,
        )
    case = Case(f"{name}: pipeline efficiency", "samples/s", values)
    facts = {"pipeline efficiency": round(case.ratio("batch already there"), 3), **_facts(sizes)}
    return Case(case.name, case.unit, values, facts=facts)


def against_plain_code(dataset: Dataset, sizes: Sizes, settings: Settings) -> Case:
    """Measure MSVQ's samples per second: ours, the plain code's, and those of forward and backward passes alone."""
    recipe = recipe_of("msvq", sizes)
    views = build("msvq", recipe).views
    data = PillowViews(pictures_of(dataset, decoded=True), views, dataset.mean, dataset.std)
    pillow = iter_forever(pillow_loader(data, sizes.batch_size, sizes.steps, settings.threads))
    for _ in range(sizes.steps):  # workers must be forked before threads start; after an epoch they are idle
        last = next(pillow)
    plain = PaperMsvq(sizes.width)
    plain.to(settings.device)
    plain.step([view.to(settings.device) for view in last])
    train = prepared(recipe, settings)
    alone = forward_and_backward(train.method, settings.device)
    with open_loader(dataset, views, sizes.batch_size, settings) as loader:
        batches = endless(loader)
        ready = next(batches)
        train(ready)

        def rate(step: Callable[[Any], object], source: Iterator[Any]) -> Callable[[], float]:
            return lambda: speed(step, source, sizes.steps, sizes.batch_size, settings.device)

        values = take_turns(
            {
                "ours, data included": rate(train, batches),
                "plain float32, Pillow in a DataLoader": rate(
                    lambda views: plain.step([v.to(settings.device) for v in views]), pillow
                ),
                "forward and backward alone": rate(alone, repeat(ready)),
            },
            settings.repeats,
        )
    return Case("msvq: a whole step", "samples/s", values, facts=_facts(sizes))


def recipe_of(name: str, sizes: Sizes) -> Recipe:
    """Return a method's CIFAR-10 recipe in the given sizes; CLIM's views are of 32 and 24 px."""
    changed: dict[str, Any] = {"resolutions": (32, 24)} if name == "clim" else {}
    return resolve(name, "cifar10", width=sizes.width, batch_size=sizes.batch_size, **changed)


def prepared(recipe: Recipe, settings: Settings) -> StandaloneStep:
    """Return the training step of a recipe as train.py makes it, compiled and recorded on a GPU."""
    on_gpu = settings.device == "cuda"
    step = make_step(recipe, settings, compiled=on_gpu, recorder=CudaGraphs() if on_gpu else None)
    step.prepare()
    return step


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


def iter_forever(loader: Any) -> Iterator[Any]:
    """Yield the batches of endless epochs."""
    while True:
        yield from loader


def _facts(sizes: Sizes) -> dict[str, Any]:
    return {"network": f"ResNet-18, width {sizes.width}", "batch": sizes.batch_size, "steps a run": sizes.steps}
