"""Stops a run at the step whose loss or gradient is not finite, before its update is kept.

In each step the run calls

    watch(batch)           before each micro-batch; the first call copies what the step can change before it is tested
    examine(loss)          after the backward pass and before the update; tests the loss and the gradients
    check(), check_late()  read the result: on a CPU before the update, otherwise after it and one step later
    settle()               before a checkpoint; reads a test that is still pending, and tests the weights

On a CPU the result of the test is read at once, and a bad update is never made. By then only buffers have changed, in
the forward pass (queues, running statistics); they are restored from their copy.

On a GPU, reading the result at once would make the host wait for the device in every step, and a recorded step cannot
be left in its middle. So the result is copied to the host in the background and read one step later (`late`), when it
has long arrived. By then the bad update has been made and the next step has begun. So the whole state (weights,
buffers, optimizer) is copied, into two copies by turns, and the copy from before the bad step is restored.

fp16's gradient scaler skips a step whose gradient overflows, which is normal now and then. With fp16 only the loss is
tested, and the scale: below 1 it has been halved so often that the gradient itself must be bad (`skipped`).

Several processes have different losses but, after averaging, the same gradients. There the gradients alone decide, so
that all processes stop at the same step. What is needed to replay the step is written by `nonfinite_files.py`.

Cost: on a CPU, one copy of the buffers in each step. On a GPU, memory for two copies of the state, and the writing of
one of them in each step.

P trained parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from models.distributed import world
from models.method import Method
from pipelines import Batch
from tools.command_line import Failure
from tools.run.nonfinite_files import write_step
from tools.run.state import RunState


class Finite(NamedTuple):
    """The test of a step: tensors on the step's device.

    Attributes:
        bad: bool [], true where the loss or a gradient is not finite.
        loss: [], the loss of the last micro-batch.
        norms_P: the norm of each parameter's gradient; None where gradients are not tested.
    """

    bad: Tensor
    loss: Tensor
    norms_P: Tensor | None


@dataclass
class _Step:
    """What is kept of a step until its test has been read.

    Attributes:
        number: the step, counted from 1.
        state: the run's state before it.
        batches: its micro-batches.
        finite: its test; None before it was tested.
        bad: the result of the test, in host memory once `arrived` has happened.
        arrived: the end of the copy to host memory; None on a CPU.
    """

    number: int
    state: dict[str, Any]
    batches: list[Batch] = field(default_factory=list)
    finite: Finite | None = None
    bad: Tensor | None = None
    arrived: torch.Event | None = None


class StepGuard:
    """Tests every step of a run. The module's docstring says how.

    Args:
        late: read the result of a step's test one step later: on a GPU, or where the step is recorded.
        folder: the folder of the run.
        config: what config.json holds.
        state: the state of the run; it is read and never changed.
        gradients: whether to test the gradients too; False with fp16.
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        late: bool,
        folder: Path,
        config: Mapping[str, Any],
        state: RunState,
        gradients: bool = True,
    ) -> None:
        self._method, self._optimizer, self.late, self._gradients = method, optimizer, late, gradients
        self._folder, self._config, self._state = folder, config, state
        self._trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
        self._copies: list[dict[str, Tensor]] = [{}, {}] if late else [{}]
        self._changing: dict[str, Tensor] = {}
        self._optimizer_entries = -1
        self._step = _Step(-1, {})
        self._pending: _Step | None = None

    def watch(self, batch: Batch) -> None:
        """Remember a micro-batch that is about to be trained on; before the first of a step, copy the state."""
        number = self._state.step + 1
        if self._step.number != number:
            self._step = _Step(number, self._state.as_dict())
            slot = number % len(self._copies)
            tensors, copy = self._changing_tensors(), self._copies[slot]
            if copy.keys() != tensors.keys():
                copy = self._copies[slot] = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
            if tensors:
                torch._foreach_copy_(list(copy.values()), list(tensors.values()))
        self._step.batches.append(batch)

    def examine(self, loss: Tensor) -> Finite:
        """Test a step without reading the result. Call it after the backward pass and before the update.

        Args:
            loss: [], the detached loss of the last micro-batch.
        """
        loss_decides = world()[1] == 1 or not self._gradients
        bad = ~loss.isfinite() if loss_decides else torch.zeros_like(loss, dtype=torch.bool)
        if not self._gradients:
            return Finite(bad, loss, None)
        grads = [torch.zeros((), device=p.device) if p.grad is None else p.grad for p in self._trained.values()]
        norms_P = torch.stack(list(torch._foreach_norm(grads)))
        return Finite(bad | ~norms_P.sum().isfinite(), loss, norms_P)

    def check(self, finite: Finite) -> None:
        """Read the result of this step's test. Call it before the update.

        Raises:
            Failure: the step is not finite.
        """
        self._step.finite = finite
        if finite.bad:
            self._stop(self._step)

    def check_late(self, finite: Finite) -> None:
        """Start to copy the result of this step's test to the host, and read that of the step before.

        Call it after the update.

        Raises:
            Failure: the step before is not finite.
        """
        step = self._step
        norms_P = None if finite.norms_P is None else finite.norms_P.clone()  # a recorded step overwrites them
        step.finite = Finite(finite.bad, finite.loss.clone(), norms_P)
        step.bad = torch.empty((), dtype=torch.bool, pin_memory=finite.bad.is_cuda)
        step.bad.copy_(finite.bad, non_blocking=True)
        step.arrived = torch.cuda.current_stream().record_event() if finite.bad.is_cuda else None
        self._read_pending()
        self._pending = step

    def settle(self) -> None:
        """Read a pending test, and test the weights. Call it before the state is saved.

        Raises:
            Failure: the last step is not finite, or its update was not.
        """
        self._read_pending()
        largest = torch.stack(list(torch._foreach_norm(list(self._trained.values()), float("inf")))).tolist()
        if bad := [name for name, value in zip(self._trained, largest, strict=True) if not math.isfinite(value)]:
            raise Failure(
                f"the weights of {len(bad)} of {len(largest)} parameters ({bad[0]} ...) are not finite after "
                f"step {self._state.step}; lower --lr, or take --precision fp32; this step was not kept"
            )

    def skipped(self, scale: float) -> None:
        """Note that fp16's gradient scaler skipped this step.

        Args:
            scale: the scaler's present scale.

        Raises:
            Failure: the scale is so low that the gradient must be infinite or NaN at any scale.
        """
        if scale < 1:
            self._stop(self._step)

    def _read_pending(self) -> None:
        step, self._pending = self._pending, None
        if step is not None:
            if step.arrived is not None:
                step.arrived.synchronize()
            if step.bad:
                self._stop(step)

    def _changing_tensors(self) -> dict[str, Tensor]:
        """Return, by name, the tensors that a step changes before its test is read.

        They are collected again only when the optimizer has got state for more parameters, as in its first step; the
        tensors stay in the same memory otherwise.
        """
        entries = len(self._optimizer.state) if self.late else 0
        if entries != self._optimizer_entries:
            self._optimizer_entries = entries
            buffers = {name: buffer.data for name, buffer in self._method.named_buffers()}
            self._changing = changing_tensors(self._method, self._optimizer) if self.late else buffers
        return self._changing

    def _stop(self, step: _Step) -> None:
        """Restore the state before a step, write what replays it, and raise the failure that ends the run."""
        reason = self._reason(step)
        tensors, copy = self._changing_tensors(), self._copies[step.number % len(self._copies)]
        for name, kept in copy.items():
            tensors[name].copy_(kept)
        if self.late and not any(name.startswith("optimizer ") for name in copy):
            self._optimizer.state.clear()  # the optimizer had no state before its first step
        method, optimizer = self._method, self._optimizer
        try:
            folder = write_step(
                self._folder, step.number, reason, step.batches, method, optimizer, step.state, self._config
            )
            replay = f"replay the step with: python -m tools.replay {folder}"
        except (OSError, SafetensorError) as error:
            replay = f"what replays the step could not be written ({error})"
        raise Failure(f"{reason} at step {step.number}; lower --lr, or take --precision fp32; {replay}")

    def _reason(self, step: _Step) -> str:
        finite = step.finite
        if finite is not None and not finite.loss.isfinite():
            return f"the loss is {float(finite.loss)}"
        if finite is None or finite.norms_P is None:
            return "the gradient overflows at every scale of fp16"
        norms = zip(self._trained, finite.norms_P.tolist(), strict=True)
        bad = [name for name, norm in norms if not abs(norm) < 1e39]
        return f"the gradient of {len(bad)} of {len(self._trained)} parameters ({', '.join(bad[:1])} ...) is not finite"


def changing_tensors(method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return by name what a training step changes: weights, teachers, queues, statistics, the optimizer's state."""
    tensors = dict(method.state_dict(keep_vars=True))
    for number, state in enumerate(optimizer.state.values()):
        tensors |= {f"optimizer {number} {name}": t for name, t in state.items() if isinstance(t, Tensor)}
    return {name: tensor.data for name, tensor in tensors.items()}
