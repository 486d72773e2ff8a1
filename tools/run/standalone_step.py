"""A training step as train.py makes it, without a run around it: for benchmarks and the doctor."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from models.method import Losses, Method
from models.methods.recipes import Recipe
from models.training.precision import DTYPES
from pipelines import Batch
from tools.run.compiled_backbones import compile_backbones
from tools.run.nonfinite_guard import StepGuard
from tools.run.optimizer import make_optimizer
from tools.run.recordings import Recorder
from tools.run.state import RunState
from tools.run.train_step import TrainStep
from tools.run.tuning import TUNING, Tuning, tune

_LR = 1e-6  # the time of a step does not depend on it, and any number of steps may be made without a warm-up


class StandaloneStep:
    """Trains a method on the batches that it is called with, at a learning rate so small that weights stay finite.

    Args:
        method: on the CPU or on `device`; it is moved there.
        recipe: its recipe, which names the optimizer.
        precision: bf16, fp16 or fp32.
        compiled: compile the backbones, as `--compile` does on a GPU.
        recorder: records the step, as `CudaGraphs` does on a GPU; None runs it as it is.
        tuning: how kernels are chosen, from now on in this process.

    Attributes:
        method: the method that is trained.
        optimizer: its optimizer.
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        device: torch.device,
        precision: str = "bf16",
        compiled: bool = False,
        recorder: Recorder | None = None,
        tuning: Tuning = TUNING,
    ) -> None:
        tune(tuning)
        method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        method.begin(0, 1000, 1)
        if compiled:
            compile_backbones(method)
        AcceleratorState._reset_state(reset_partial_state=True)  # another one may have had another precision
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)
        self.method, self.optimizer = method, make_optimizer(recipe.training, method)
        model, prepared = accelerator.prepare(method, self.optimizer)
        self._state = RunState(recipe.method, 0, 1, "", {})
        late = device.type == "cuda" or recorder is not None
        config = {"options": {"precision": precision}}
        gradients = accelerator.scaler is None
        guard = StepGuard(method, self.optimizer, late, Path(tempfile.gettempdir()), config, self._state, gradients)
        self._dtype = DTYPES[precision]
        self._step = TrainStep(
            accelerator, model, method, prepared, recipe.training, guard, recorder, compiles=compiled
        )

    @property
    def recorded(self) -> bool:
        """Whether the step is recorded: False without a recorder, and where recording has failed."""
        return self._step.recorded

    def prepare(self) -> None:
        """Compile and record whatever the step needs, as train.py does before its first step."""
        self._step.prepare(self._dtype, 0)

    def __call__(self, batch: Batch) -> Losses:
        """Make a step; its losses stay on the device."""
        losses = self._step(batch, self._state.step, _LR)
        self._state.step += 1
        return losses
