"""Measures each stage of training alone and all together, and says which one limits.

Stages, in samples/s: `cut` decodes and crops; `loaded` is the complete loader, with colours; `trained` is a training
step on a batch that is ready; `together` is training from the loader. If `together` is nearly `trained`, the network is
the limit, and a faster data path would gain nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch

from models.method import Method
from models.methods.recipes import Recipe
from models.training.precision import DTYPES
from pipelines import Batch, Dataset, View, make_loader
from pipelines.executors.resident import LIMIT, decoded_bytes, forecast
from pipelines.loader import Loader
from tools.run.recordings import CudaGraphs
from tools.run.standalone_step import StandaloneStep

ENOUGH = 0.95  # together / trained from which on the network is the limit
_SHRINK = 1.5  # images stored larger than this multiple of the largest view are decoded for nothing


@dataclass(frozen=True)
class Speeds:
    """Samples/s of the stages; the module's docstring defines them."""

    cut: float
    loaded: float
    trained: float
    together: float

    @property
    def efficiency(self) -> float:
        """The share of the step's own speed that is left when the loader feeds it."""
        return self.together / self.trained


@dataclass(frozen=True)
class Verdict:
    """The limiting stage, the reason for that verdict, and a remedy."""

    stage: str
    reason: str
    remedy: str


def measure_stages(
    method: Method,
    recipe: Recipe,
    dataset: Dataset,
    seconds: float,
    device: torch.device,
    precision: str,
    **loading: Any,
) -> tuple[Speeds, str]:
    """Measure every stage for a quarter of `seconds`, and for at least two batches.

    Args:
        recipe: of the method.
        precision: of its passes.
        loading: further keywords of `make_loader`: loader, threads, compile.

    Returns:
        The speeds, and the loader's note, which says what it chose.
    """
    on_gpu = device.type == "cuda"
    recorder = CudaGraphs() if on_gpu else None
    train = StandaloneStep(method, recipe, device, precision, compiled=on_gpu, recorder=recorder)
    train.prepare()
    duration, batch_size, loading = seconds / 4, recipe.training.batch_size, loading | {"dtype": DTYPES[precision]}
    with ExitStack() as open_loaders:
        crops_only, complete = (
            open_loaders.enter_context(make_loader(dataset, views, batch_size, device=device, **loading))
            for views in ([view.without_colours() for view in method.views], method.views)
        )
        with _forever(complete) as batches:
            ready = next(batches)
            train(ready)  # compiles
            trained = _speed(iter(lambda: ready, None), train, duration, device)
            together = _speed(batches, train, duration, device)
        with _forever(crops_only) as batches:
            cut = _speed(batches, _nothing, duration, device)
        with _forever(complete) as batches:
            loaded = _speed(batches, _nothing, duration, device)
        return Speeds(cut, loaded, trained, together), crops_only.note


def verdict(speeds: Speeds, dataset: Dataset, views: Iterable[View], device: torch.device, loader: str) -> Verdict:
    """Return which stage limits, why, and what to do about it.

    Args:
        loader: the loader that was measured: ffcv, dali or resident.
    """
    if speeds.efficiency >= ENOUGH:
        reason = f"training from the loader runs at {speeds.efficiency:.0%} of the step alone"
        return Verdict("the network", reason, "nothing in the data path; a faster step comes with --precision bf16")
    seconds_cut, seconds_colours = 1 / speeds.cut, max(0.0, 1 / speeds.loaded - 1 / speeds.cut)
    if device.type == "cpu" and speeds.loaded > 4 * speeds.trained:
        ratio = speeds.loaded / speeds.trained
        reason = f"the loader alone is {ratio:.0f} times as fast as the step, but they share the cores"
        return Verdict("the cores", reason, "more cores, or a GPU; --threads N divides what there is")
    if seconds_cut < seconds_colours:
        reason = f"colours take {seconds_colours / (seconds_cut + seconds_colours):.0%} of the loader's time"
        remedy = "--compile" if device.type == "cuda" else "give the process more cores, and --threads as many"
        return Verdict("the augmentation", reason, remedy)
    reason = f"decoding and cropping take {seconds_cut / (seconds_cut + seconds_colours):.0%} of the loader's time"
    return Verdict("decoding and cropping", reason, _decode_less(dataset, views, device, loader))


def _decode_less(dataset: Dataset, views: Iterable[View], device: torch.device, loader: str) -> str:
    """Return what makes decoding cheaper."""
    if loader != "resident" and forecast(dataset, device)[0] <= LIMIT:
        return f"--loader resident: the decoded set takes {decoded_bytes(dataset) / 2**30:.2f} GiB"
    side, largest = int(min(dataset.heights.mean(), dataset.widths.mean())), max(view.size for view in views)
    if side > _SHRINK * largest:
        return f"python -m tools.convert {dataset.path} OUT --max-size {int(_SHRINK * largest)}: images are {side} px"
    if device.type == "cuda" and loader != "dali":
        return "--loader dali: it decodes on the GPU"
    return "give the process more cores, and --threads as many"


@contextmanager
def _forever(loader: Loader) -> Iterator[Iterator[Batch]]:
    """Yield the batches of endless epochs; they are closed on exit, so that no thread of the loader keeps running."""
    batches = (batch for epoch in count() for batch in loader.epoch(epoch))
    try:
        yield batches
    finally:
        batches.close()


def _nothing(batch: Batch) -> None:
    return None


def _speed(batches: Iterator[Batch], work: Callable[[Batch], object], seconds: float, device: torch.device) -> float:
    """Return the samples/s of about `seconds`, after using up the batches that were prepared before."""
    for batch in islice(batches, 1 if work is not _nothing else 4):
        work(batch)
    _wait(device)
    started, samples, done = time.perf_counter(), 0, 0
    for batch in batches:
        work(batch)
        samples, done = samples + len(batch.index), done + 1
        if done >= 2 and time.perf_counter() - started >= seconds:
            break
    _wait(device)
    return samples / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
