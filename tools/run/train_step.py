"""One optimizer step: forward, backward, and after the last micro-batch the update. Recorded where a GPU allows it.

The step reads its inputs from fixed memory (`step_inputs.py`) and computes nothing on the host that changes from step
to step. So it can run as plain Python, as on a CPU or with several processes, or be recorded once for each kind of step
and replayed: one CUDA graph from the views in memory to the moved teacher. Both compute the same.

    plain       on a CPU; on a GPU with --no-compile
    compiled    on a GPU: backbones and losses; with several processes, in fp16, and with --no-record
    recorded    on a GPU otherwise; on a CPU in tests, with `Tape` in place of CUDA graphs

Whatever is compiled or recorded is prepared before the first step, while no thread of the loader works: torch's tracer
and a CUDA graph in the making do not bear the calls of other threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from models.method import Losses, Method
from models.networks.norm import average_running_statistics
from models.training.config import Training
from models.training.optim import allocate_state, set_learning_rate
from pipelines import Batch, View
from tools.run.nonfinite_guard import Finite, StepGuard, changing_tensors
from tools.run.recordings import Recorder
from tools.run.step_inputs import StepInputs


class Kind(NamedTuple):
    """Steps of one kind run the same operations on the same memory.

    Attributes:
        method: the method's own kind of step.
        mixed: whether the batch has partners.
        updates: whether this micro-batch is the last one of its optimizer step.
    """

    method: str
    mixed: bool
    updates: bool


@dataclass(frozen=True)
class Outcome:
    """What a micro-batch leaves: losses, and after the last one of a step whether all is finite."""

    losses: Losses
    finite: Finite | None


class TrainStep:
    """Makes optimizer steps, micro-batch by micro-batch.

    Args:
        accelerator: has prepared `model` and `optimizer`.
        model: the method, inside DDP where there are several processes.
        guard: looks whether a step is finite.
        recorder: records the step; None runs it as it is.
        compiles: whether the first step of a kind compiles something, so that every kind is prepared.
        parked: a context in which no thread of the loader works; a kind of step that was not prepared before the first
            step is prepared in it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        method: Method,
        optimizer: torch.optim.Optimizer,
        training: Training,
        guard: StepGuard,
        recorder: Recorder | None = None,
        compiles: bool = False,
        parked: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._accelerator, self._model, self._method, self._optimizer = accelerator, model, method, optimizer
        self._training, self._guard, self._recorder, self._parked = training, guard, recorder, parked
        self._prepares = recorder is not None or compiles
        micro_batch = training.batch_size // accelerator.gradient_accumulation_steps
        self._samples = micro_batch // accelerator.num_processes
        self._inputs = StepInputs(method, self._samples, accelerator.device)
        self._prepared: dict[Kind, Callable[[], Outcome]] = {}
        self._accumulates = accelerator.gradient_accumulation_steps > 1
        allocate_state(optimizer)
        set_learning_rate(optimizer, self._inputs.lr)
        if recorder is not None and self._accumulates:  # gradients add up in memory that stays
            for parameter in method.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: Batch, step: int, lr: float) -> Losses:
        """Trains on a micro-batch.

        Args:
            step: of the optimizer, from 0.
            lr: its learning rate.

        Returns:
            The losses of the micro-batch. Recorded, their memory is that of the next one too.
        """
        self._guard.watch(batch)
        fixed = self._inputs.load(batch, step, lr)
        updates = bool(self._accelerator.sync_gradients)
        outcome = self._run(Kind(self._method.kind(step), batch.partner is not None, updates), fixed, step)
        if updates:
            if outcome.finite is not None:
                self._guard.check_late(outcome.finite)
            self._method.step = step + 1
        return outcome.losses

    @property
    def recorded(self) -> bool:
        """Whether steps are recorded: False without a recorder, and where recording has failed."""
        return self._recorder is not None

    def prepare(self, dtype: torch.dtype, first_step: int) -> None:
        """Compiles and records every kind of step that the run has from `first_step` on, with pictures of noise.

        Leaves the training as it was. Every process calls it.

        Args:
            dtype: of the views.
        """
        if not self._prepares:
            return
        for mixed in (False, True) if self._method.mixes else (False,):
            batch = noise_batch(self._method.views, self._samples, self._accelerator.device, dtype, mixed)
            for name, step in self._method.kinds(first_step).items():
                fixed = self._inputs.load(batch, step, 0.0)
                for updates in (False, True) if self._accumulates else (True,):
                    self._prepare(Kind(name, mixed, updates), fixed, step)

    def _run(self, kind: Kind, batch: Batch, step: int) -> Outcome:
        if not self._prepares:
            return self._compute(batch)
        if kind not in self._prepared:
            with self._parked():
                self._prepare(kind, batch, step)
        return self._prepared[kind]()

    def _prepare(self, kind: Kind, batch: Batch, step: int) -> None:
        """Compiles and records a kind of step and leaves the training as it was.

        What cannot be recorded is made from its operations in every step, after a line that says why.

        Args:
            batch: inputs of such a step, in the fixed memory.
            step: of the optimizer, from 0.
        """
        gradients = {f"gradient {name}": p.grad for name, p in self._method.named_parameters() if p.grad is not None}
        without_gradient = [parameter for parameter in self._method.parameters() if parameter.grad is None]
        tensors = changing_tensors(self._method, self._optimizer) | gradients
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        state = self._accelerator.gradient_state
        synced, was_at = state.sync_gradients, self._method.step
        state._set_sync_gradients(kind.updates)
        self._method.step = step
        run = partial(self._compute, batch)
        try:
            if self._recorder is None:
                run()
            else:
                replay, outcome = self._recorder.record(run)
                run = partial(_replayed, replay, outcome)
        except RuntimeError as error:
            if self._recorder is None:
                raise
            reason = " ".join(str(error).split())[:200]
            print(f"the step cannot be recorded, which costs speed and nothing else: {reason}", file=sys.stderr)
            self._recorder = None
        finally:
            state._set_sync_gradients(synced)
            self._method.step = was_at
            for parameter in without_gradient:  # a step that broke off may have left some, to which the next would add
                parameter.grad = None
            with torch.no_grad():
                for name, kept in before.items():
                    tensors[name].detach().copy_(kept)
        self._prepared[kind] = run

    def _compute(self, batch: Batch) -> Outcome:
        """The step itself, from a batch in fixed memory to the moved teacher."""
        losses: Losses = self._model(batch)
        self._accelerator.backward(losses.total)
        losses = Losses(losses.total.detach(), losses.terms)
        if not self._accelerator.sync_gradients:
            self._optimizer.step()  # Accelerate waits for the last micro-batch
            return Outcome(losses, None)
        finite = self._guard.examine(losses.total)
        if not self._guard.late:
            self._guard.check(finite)
        if self._training.clip_norm:
            self._accelerator.clip_grad_norm_(self._model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=not (self._recorder is not None and self._accumulates))
        average_running_statistics(self._method)
        self._method.update_teachers(batch.numbers)
        return Outcome(losses, finite if self._guard.late else None)


def _replayed(replay: Callable[[], None], outcome: Outcome) -> Outcome:
    replay()
    return outcome


def noise_batch(
    views: Sequence[View], count: int, device: torch.device, dtype: torch.dtype, mixed: bool = False
) -> Batch:
    """A batch of noise in the shapes and the memory layout of the loader's, to prepare a step with."""
    noise = torch.Generator().manual_seed(0)
    pictures = tuple(
        torch.randn(count, 3, view.size, view.size, generator=noise)
        .to(device, dtype)
        .contiguous(memory_format=torch.channels_last)
        for view in views
    )
    numbers = torch.arange(count, device=device)
    batch = Batch(pictures, numbers, torch.full_like(numbers, -1), 0)
    if not mixed:
        return batch
    box_B4 = torch.tensor([0.25, 0.25, 0.75, 0.75], device=device).expand(count, 4)
    return replace(batch, partner=batch, box=box_B4)
