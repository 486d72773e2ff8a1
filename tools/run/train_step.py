"""One optimizer step: forward, backward, and after the last micro-batch the update. Recorded where a GPU allows it.

The step reads its inputs from fixed memory (`step_inputs.py`) and computes nothing on the host that changes from step
to step. So it can run as plain Python, as on a CPU or with several processes, or be recorded once for each kind of step
and replayed: one CUDA graph from the views in memory to the moved teacher. Both compute the same.

    plain       --no-compile; several processes and fp16, with compiled backbones; a CPU
    recorded    one process on a GPU; also a CPU in tests, with `Tape` in place of CUDA graphs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from models.method import Losses, Method
from models.networks.norm import average_running_statistics
from models.training.config import Training
from models.training.optim import allocate_state, set_learning_rate
from pipelines import Batch
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
        parked: a context in which no thread of the loader works; a kind of step that first occurs in the middle of an
            epoch is recorded in it.
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
        parked: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._accelerator, self._model, self._method, self._optimizer = accelerator, model, method, optimizer
        self._training, self._guard, self._recorder, self._parked = training, guard, recorder, parked
        micro_batch = training.batch_size // accelerator.gradient_accumulation_steps
        self._inputs = StepInputs(method, micro_batch // accelerator.num_processes, accelerator.device)
        self._recordings: dict[Kind, tuple[Callable[[], None], Outcome]] = {}
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
        outcome = self._run(Kind(self._method.kind(step), batch.partner is not None, updates), fixed)
        if updates:
            if outcome.finite is not None:
                self._guard.check_late(outcome.finite)
            self._method.step = step + 1
        return outcome.losses

    def _run(self, kind: Kind, batch: Batch) -> Outcome:
        if self._recorder is None:
            return self._compute(batch)
        if kind not in self._recordings:
            with self._parked():
                self.record(kind, batch)
        if self._recorder is None:  # it could not be recorded
            return self._compute(batch)
        replay, outcome = self._recordings[kind]
        replay()
        return outcome

    def _compute(self, batch: Batch) -> Outcome:
        """The step itself, from a batch in fixed memory to the moved teacher."""
        losses: Losses = self._model(batch)
        self._accelerator.backward(losses.total)
        losses = Losses(losses.total.detach(), losses.terms)
        if not self._accelerator.sync_gradients:
            self._optimizer.step()  # Accelerate waits for the last micro-batch
            return Outcome(losses, None)
        finite = self._guard.look(losses.total)
        if not self._guard.late:
            self._guard.check(finite)
        if self._training.clip_norm:
            self._accelerator.clip_grad_norm_(self._model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=not (self._recorder is not None and self._accumulates))
        average_running_statistics(self._method)
        self._method.update_teachers(batch.numbers)
        return Outcome(losses, finite if self._guard.late else None)

    def record(self, kind: Kind, batch: Batch) -> None:
        """Records a kind of step, and leaves the training as it was. What cannot be recorded runs plain from then on.

        Args:
            batch: inputs of such a step, in the fixed memory.
        """
        assert self._recorder is not None
        tensors = changing_tensors(self._method, self._optimizer)
        tensors |= {f"gradient {name}": p.grad for name, p in self._method.named_parameters() if p.grad is not None}
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        try:
            self._recordings[kind] = self._recorder.record(lambda: self._compute(batch))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            print(f"the step is not recorded and runs more slowly: {reason}", file=sys.stderr)
            self._recorder = None
        with torch.no_grad():
            for name, kept in before.items():
                tensors[name].detach().copy_(kept)
