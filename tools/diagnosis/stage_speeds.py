"""Measures each stage of training alone and all together, in turns, and says how much the measurements differ.

Stages, in samples/s: `cut` decodes and crops; `loaded` is the complete loader, with colours; `trained` is a training
step on a batch that is ready, while the loader rests; `together` is training from the loader.

Every stage is warmed up before any is measured, because the first batches wait for compilers and files. Training from
the loader cannot be faster than the step alone: where it seems so, other work disturbed one of the two, and all stages
are measured once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, repeat
from statistics import median
from typing import Any

import torch

from models.method import Method
from models.methods.recipes import Recipe
from models.training.precision import DTYPES
from pipelines import Batch, Dataset, make_loader
from tools.benchmarks.measure import synchronize, take_turns
from tools.benchmarks.training import endless
from tools.run.recordings import Recorder
from tools.run.standalone_step import StandaloneStep

POSSIBLE = 1.05  # together / trained up to which a measurement is believed
_ROUNDS = 3
_AHEAD = 4  # batches that a loader may have prepared

#: Stage -> a function that runs it for about so many seconds and returns its samples/s.
Stages = Mapping[str, Callable[[float], float]]


@dataclass(frozen=True)
class Speeds:
    """Samples/s of the stages; the module's docstring defines them.

    Attributes:
        spread: (largest - smallest) / median of the measurements of each stage.
    """

    cut: float
    loaded: float
    trained: float
    together: float
    spread: Mapping[str, float] = field(default_factory=dict)

    @property
    def efficiency(self) -> float:
        """The share of the step's own speed that is left when the loader feeds it."""
        return self.together / self.trained

    @property
    def possible(self) -> bool:
        """Whether the efficiency is one that can be."""
        return self.efficiency <= POSSIBLE


def in_turns(stages: Stages, seconds: float) -> Speeds:
    """Measure stages in turns for about `seconds` altogether, and once more if the result cannot be.

    Args:
        stages: the four stages, in the order in which they take turns.
    """
    for run in stages.values():
        run(0.0)  # warms up
    turn = seconds / len(stages) / _ROUNDS
    for _ in range(2):
        values = take_turns({name: partial(run, turn) for name, run in stages.items()}, _ROUNDS)
        medians = {name: median(measured) for name, measured in values.items()}
        spread = {name: (max(measured) - min(measured)) / medians[name] for name, measured in values.items()}
        speeds = Speeds(**medians, spread=spread)
        if speeds.possible:
            break
    return speeds


def measure_stages(
    method: Method,
    recipe: Recipe,
    dataset: Dataset,
    seconds: float,
    device: torch.device,
    precision: str,
    compiled: bool,
    recorder: Recorder | None,
    **loading: Any,
) -> tuple[Speeds, str]:
    """Measure every stage of the training of a recipe, three times and each time for at least one batch.

    Args:
        recipe: of the method.
        seconds: the duration of all stages together, if batches are short enough.
        precision: of its passes.
        compiled, recorder: whether backbones are compiled, and what records steps, as in `StandaloneStep`.
        loading: further keywords of `make_loader`: loader, threads.

    Returns:
        The speeds, and the loader's note, which says what it chose.
    """
    train = StandaloneStep(method, recipe, device, precision, compiled, recorder)
    train.prepare()
    batch_size, loading = recipe.training.batch_size, loading | {"dtype": DTYPES[precision]}
    with ExitStack() as stack:
        crops_only, complete = (
            stack.enter_context(make_loader(dataset, views, batch_size, device=device, **loading))
            for views in ([view.without_colours() for view in method.views], method.views)
        )
        crops, batches = endless(crops_only), endless(complete)
        ready = next(batches)
        loader_is_slower = False

        def cut(seconds: float) -> float:
            with complete.parked():
                return _speed(_used_up(crops), _nothing, seconds, device)

        def loaded(seconds: float) -> float:
            with crops_only.parked():
                return _speed(_used_up(batches), _nothing, seconds, device)

        def trained(seconds: float) -> float:
            with crops_only.parked(), complete.parked():
                train(ready)  # while a decoder ends what it had begun
                return _speed(repeat(ready), train, seconds, device)

        def together(seconds: float) -> float:
            """Train from a loader whose queue is as full before as after: empty if the loader limits, else full."""
            with crops_only.parked():
                if loader_is_slower:
                    return _speed(_used_up(batches), train, seconds, device)
                train(next(batches))
                return _speed(batches, train, seconds, device)

        loader_is_slower = loaded(0.0) < trained(0.0)
        speeds = in_turns({"cut": cut, "loaded": loaded, "trained": trained, "together": together}, seconds)
        return speeds, crops_only.note


def _used_up(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Take the batches that the loader has prepared, and return the others."""
    for _ in islice(batches, _AHEAD):
        pass
    return batches


def _nothing(batch: Batch) -> None:
    return None


def _speed(batches: Iterator[Batch], work: Callable[[Batch], object], seconds: float, device: torch.device) -> float:
    """Return the samples/s of about `seconds`, and of at least one batch."""
    synchronize(device.type)
    started, samples = time.perf_counter(), 0
    for batch in batches:
        work(batch)
        samples += len(batch.index)
        if time.perf_counter() - started >= seconds:
            break
    synchronize(device.type)
    return samples / (time.perf_counter() - started)
