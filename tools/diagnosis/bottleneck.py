"""What limits training on this machine and data set: the speed of each stage alone and of all together.

Stages, in samples/s: `cut` decodes and crops; `loaded` is the whole loader, colours included; `trained` is a training
step on a batch that is there; `together` is training from the loader. Where `together` is all but `trained`, the data
path costs nothing that training could have.
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
from pipelines import Batch, Dataset, View, make_loader
from pipelines.executors.resident import LIMIT, decoded_bytes, forecast
from pipelines.loader import Loader
from tools.benchmarks.step import trainer

ENOUGH = 0.95  # share of the network's own speed that is left with the loader, from which on the network is the limit
_SHRINK = 1.5  # stored sides beyond this many times the largest view are decoded for nothing


@dataclass(frozen=True)
class Speeds:
    """Samples/s of the stages, as above."""

    cut: float
    loaded: float
    trained: float
    together: float

    @property
    def efficiency(self) -> float:
        return self.together / self.trained


@dataclass(frozen=True)
class Verdict:
    """The limiting stage, why, and what mends it."""

    stage: str
    why: str
    mend: str


def probe(
    method: Method, dataset: Dataset, batch_size: int, seconds: float, device: torch.device, **loading: Any
) -> tuple[Speeds, str]:
    """Measures every stage for a quarter of `seconds`, and at least two batches; also says what the loader took.

    Args:
        loading: keywords of `make_loader`: loader, threads, dtype, compile.
    """
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types do not know it
    method.begin(0, 1000, 1)
    train, part = trainer(method, device.type), seconds / 4
    with ExitStack() as open_loaders:
        plain, whole = (
            open_loaders.enter_context(make_loader(dataset, views, batch_size, device=device, **loading))
            for views in ([view.without_colours() for view in method.views], method.views)
        )
        with _forever(whole) as batches:
            ready = next(batches)
            train(ready)  # whatever has to be compiled
            trained = _speed(iter(lambda: ready, None), train, part, device)
            together = _speed(batches, train, part, device)
        with _forever(plain) as batches:
            cut = _speed(batches, _nothing, part, device)
        with _forever(whole) as batches:
            loaded = _speed(batches, _nothing, part, device)
        return Speeds(cut, loaded, trained, together), plain.note


def verdict(speeds: Speeds, dataset: Dataset, views: Iterable[View], device: torch.device, loader: str) -> Verdict:
    """Which stage limits, and the command that mends it.

    Args:
        loader: the executor that was measured: ffcv, dali or resident.
    """
    if speeds.efficiency >= ENOUGH:
        why = f"training from the loader runs at {speeds.efficiency:.0%} of the step alone"
        return Verdict("the network", why, "nothing in the data path; a faster step comes with --precision bf16")
    seconds_cut, seconds_colours = 1 / speeds.cut, max(0.0, 1 / speeds.loaded - 1 / speeds.cut)
    if device.type == "cpu" and speeds.loaded > 4 * speeds.trained:
        why = f"the loader is {speeds.loaded / speeds.trained:.0f} times as fast as the step, but they share the cores"
        return Verdict("the cores", why, "more cores, or a GPU; --threads N divides what there is")
    if seconds_cut < seconds_colours:
        why = f"colours take {seconds_colours / (seconds_cut + seconds_colours):.0%} of the loader's time"
        mend = "--compile" if device.type == "cuda" else "give the process more cores, and --threads as many"
        return Verdict("the augmentation", why, mend)
    why = f"decoding and cropping take {seconds_cut / (seconds_cut + seconds_colours):.0%} of the loader's time"
    return Verdict("decoding and cropping", why, _decode_less(dataset, views, device, loader))


def _decode_less(dataset: Dataset, views: Iterable[View], device: torch.device, loader: str) -> str:
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
    """Batches of one epoch after the other; closed at the end, so that no thread goes on."""
    batches = (batch for number in count() for batch in loader.epoch(number))
    try:
        yield batches
    finally:
        batches.close()


def _nothing(batch: Batch) -> None:
    return None


def _speed(batches: Iterator[Batch], work: Callable[[Batch], object], seconds: float, device: torch.device) -> float:
    """Samples/s over about `seconds`, after what was ready beforehand is used up."""
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
