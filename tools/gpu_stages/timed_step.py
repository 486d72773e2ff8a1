"""A training step in one of its forms (recorded, compiled, plain), ready to be timed beside others in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice, repeat

import torch

from models.methods.recipes import Recipe
from pipelines import Batch
from pipelines.compiled import compile_hot_path
from tools.benchmarks.kernels import DeviceWork, device_work
from tools.benchmarks.measure import synchronize
from tools.benchmarks.training import make_step, speed
from tools.gpu_stages.context import Context
from tools.run.recordings import CudaGraphs
from tools.run.tape import Tape
from tools.run.train_step import noise_batch
from tools.run.tuning import TUNING, Tuning

_WINDOW = 0.7  # seconds that a step is timed for in each turn


class TimedStep:
    """A step that has been prepared. No thread of a loader may work while it is made.

    Attributes:
        first_seconds: the seconds that compiling, recording and a first step took.
        method: the method that is trained.
    """

    def __init__(
        self, recipe: Recipe, context: Context, compiled: bool = True, recorded: bool = True, tuning: Tuning = TUNING
    ) -> None:
        settings, self._compiled, self._batch_size = context.settings, compiled, recipe.training.batch_size
        self._device = settings.device
        recorder = (Tape() if context.rehearsal else CudaGraphs()) if recorded else None
        self._step = make_step(recipe, settings, compiled, recorder, tuning)
        self.method = self._step.method
        device = torch.device(self._device)
        noise = noise_batch(self.method.views, self._batch_size, device, torch.bfloat16)
        compile_hot_path(compiled)
        synchronize(self._device)
        started = time.perf_counter()
        self._step.prepare()
        self._step(noise)
        synchronize(self._device)
        self.first_seconds = time.perf_counter() - started
        self._steps = self._profiled = 1
        if not context.rehearsal:
            self._steps = max(3, math.ceil(_WINDOW * self.speed(iter([noise] * 5), 5) / self._batch_size))
            self._profiled = 5

    @property
    def recorded(self) -> bool:
        """Whether the step is recorded; False also where recording has failed."""
        return self._step.recorded

    def speed(self, batches: Iterator[Batch], steps: int = 0) -> float:
        """Return the samples per second of a turn."""
        compile_hot_path(self._compiled)  # a switch of the whole process
        return speed(self._step, batches, steps or self._steps, self._batch_size, self._device)

    def speed_on(self, batch: Batch) -> float:
        """Return the samples per second of a turn on one batch, which lies on the device."""
        return self.speed(repeat(batch))

    def speed_from(self, batches: Iterator[Batch]) -> float:
        """Return the samples per second of a turn from a loader, whose queue is as full before it as after it."""
        for batch in islice(batches, 2):
            self._step(batch)
        return self.speed(batches)

    def work_on(self, batch: Batch) -> DeviceWork:
        """Return the kernels of a step, and for how long they keep the device busy."""
        compile_hot_path(self._compiled)
        return device_work(lambda: self._step(batch), self._device, self._profiled)

    def speed_of_loader(self, batches: Iterator[Batch]) -> float:
        """Return the samples per second of a loader when nothing is trained, over as many steps."""
        for _ in islice(batches, 8):  # more than it has prepared
            pass
        return speed(lambda batch: None, batches, self._steps, self._batch_size, self._device)
