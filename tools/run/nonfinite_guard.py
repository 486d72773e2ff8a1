"""Stops a run at the step whose loss or gradient is not finite, and keeps what replays that step.

    RUN/nonfinite-step-00000123/
        step.json                     what is not finite, precision, and of each process its images and its batch's seed
        config.json                   the run's: method, recipe, seed, data, versions
        before/step-00000122/         a checkpoint of the state before the step: weights, queues, teachers, statistics
        batch-process-0.safetensors   the views, one file for each process

On a CPU the flag is read before the update, which is then not made; what the forward pass has changed already (queues,
running statistics) is put back from a copy of the buffers. On a GPU, reading it there would make the host wait in every
step: it is read one step later, when it has long arrived, and the whole state is put back from one of two copies on the
device. Cost: on a CPU one copy of the buffers a step; on a GPU two copies of the whole state held, one made a step.
fp16's scaler skips steps whose gradient overflows; there, only the loss is looked at, and a scale below 1.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from models.distributed import world
from models.method import Method
from models.storage import checkpoint
from pipelines import Batch
from tools.command_line import Failure
from tools.run.state import RunState


class Finite(NamedTuple):
    """What says whether a step is finite: tensors on its device.

    Attributes:
        bad: bool [], true where the loss or a gradient is not finite.
        loss: [], of the last micro-batch.
        norms_P: norms of the gradients of the trained parameters; None where gradients do not count.
    """

    bad: Tensor
    loss: Tensor
    norms_P: Tensor | None


@dataclass
class _Step:
    """What is kept of a step until it is known to be finite; norms are those of the gradients of `trained`."""

    number: int
    state: dict[str, Any]
    batches: list[Batch] = field(default_factory=list)
    finite: Finite | None = None
    bad: Tensor | None = None
    arrived: torch.Event | None = None


class StepGuard:
    """Looks at every step of a run.

    Args:
        late: read a step's flag one step later, as on a GPU, or where the step is recorded.
        gradients: look at them too, not only at the loss. They are the same on every process, and alone decide where
            there are several.
        folder: of the run.
        config: what config.json holds.
        state: of the run; read, never changed.
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
        self._held: dict[str, Tensor] = {}
        self._known = -1
        self._now = _Step(-1, {})
        self._unread: _Step | None = None

    def watch(self, batch: Batch) -> None:
        """Call it with each part of a batch before it is trained on; the first part of a step copies the state."""
        number = self._state.step + 1
        if self._now.number != number:
            self._now = _Step(number, self._state.as_dict())
            place = number % len(self._copies)
            tensors, copy = self._tensors(), self._copies[place]
            if copy.keys() != tensors.keys():
                copy = self._copies[place] = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
            if tensors:
                torch._foreach_copy_(list(copy.values()), list(tensors.values()))
        self._now.batches.append(batch)

    def look(self, loss: Tensor) -> Finite:
        """Computes, without reading it, whether the step is finite; call it after backward, before the update.

        Args:
            loss: [], detached, of the last micro-batch.
        """
        bad = ~loss.isfinite() if world()[1] == 1 or not self._gradients else torch.zeros_like(loss, dtype=torch.bool)
        if not self._gradients:
            return Finite(bad, loss, None)
        grads = [torch.zeros((), device=p.device) if p.grad is None else p.grad for p in self._trained.values()]
        norms_P = torch.stack(list(torch._foreach_norm(grads)))
        return Finite(bad | ~norms_P.sum().isfinite(), loss, norms_P)

    def check(self, finite: Finite) -> None:
        """Reads the flag of this step; call it before the update.

        Raises:
            Failure: the step is not finite; what replays it is in the run's folder.
        """
        self._now.finite = finite
        if finite.bad:
            self._stop(self._now)

    def check_late(self, finite: Finite) -> None:
        """Reads the flag of the step before, and asks for this one's; call it after the update.

        Raises:
            Failure: the step before is not finite; what replays it is in the run's folder.
        """
        now = self._now
        norms_P = None if finite.norms_P is None else finite.norms_P.clone()  # a recorded step writes them again
        now.finite = Finite(finite.bad, finite.loss.clone(), norms_P)
        now.bad = torch.empty((), dtype=torch.bool, pin_memory=finite.bad.is_cuda)
        now.bad.copy_(finite.bad, non_blocking=True)
        now.arrived = torch.cuda.current_stream().record_event() if finite.bad.is_cuda else None
        self._read()
        self._unread = now

    def settle(self) -> None:
        """Reads a flag that is still to be read, and looks at the weights: call it before what is trained is kept.

        Raises:
            Failure: the step is not finite, or its update was not.
        """
        self._read()
        largest = torch.stack(list(torch._foreach_norm(list(self._trained.values()), float("inf")))).tolist()
        if bad := [name for name, value in zip(self._trained, largest, strict=True) if not math.isfinite(value)]:
            raise Failure(
                f"the weights of {len(bad)} of {len(largest)} parameters ({bad[0]} ...) are not finite after "
                f"step {self._state.step}; lower --lr, or take --precision fp32; this step was not kept"
            )

    def _read(self) -> None:
        step, self._unread = self._unread, None
        if step is not None:
            if step.arrived is not None:
                step.arrived.synchronize()
            if step.bad:
                self._stop(step)

    def skipped(self, scale: float) -> None:
        """Call it where fp16's scaler skipped a step.

        Raises:
            Failure: it has lowered its scale so far that the gradient itself must be the cause.
        """
        if scale < 1:
            self._stop(self._now)

    def _tensors(self) -> dict[str, Tensor]:
        """What a step changes before its flag is read: the same memory in every step after the first."""
        known = len(self._optimizer.state) if self.late else 0
        if known != self._known:
            self._known = known
            buffers = {name: buffer.data for name, buffer in self._method.named_buffers()}
            self._held = changing_tensors(self._method, self._optimizer) if self.late else buffers
        return self._held

    def _stop(self, step: _Step) -> None:
        reason = self._reason(step)
        tensors, copy = self._tensors(), self._copies[step.number % len(self._copies)]
        for name, kept in copy.items():
            tensors[name].copy_(kept)
        if self.late and not any(name.startswith("optimizer ") for name in copy):
            self._optimizer.state.clear()  # the first step: there was nothing in it
        try:
            replay = f"replay the step with: python -m tools.replay {self._save(step, reason)}"
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

    def _save(self, step: _Step, reason: str) -> Path:
        folder = self._folder / f"nonfinite-step-{step.number:08d}"
        rank, processes = world()
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{number} {name}": t for number, batch in enumerate(step.batches) for name, t in named(batch).items()
        }
        path = folder / f"batch-process-{rank}.safetensors"
        own_memory = {name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        save_file(own_memory, path)
        facts = {
            "step": step.number,
            "reason": reason,
            "processes": processes,
            "steps_per_epoch": self._method.steps_per_epoch,
            "precision": self._config["options"]["precision"],
            "images": [batch.index.tolist() for batch in step.batches],
            "seeds": [batch.seed for batch in step.batches],
        }
        own = folder / ("step.json" if rank == 0 else f"step-process-{rank}.json")
        own.write_text(json.dumps(facts, indent=2) + "\n")
        shutil.copymode(own, path)  # safetensors makes private files; the user's umask decides
        if rank == 0:
            (folder / "config.json").write_text(json.dumps(self._config, indent=2) + "\n")
            checkpoint.save(folder / "before", self._method, self._optimizer, step.state)
        return folder


def changing_tensors(method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that a training step changes, by name: weights, teachers, queues, statistics, the optimizer's state."""
    held = dict(method.state_dict(keep_vars=True))
    for number, entries in enumerate(optimizer.state.values()):
        held |= {f"optimizer {number} {name}": value for name, value in entries.items() if isinstance(value, Tensor)}
    return {name: tensor.data for name, tensor in held.items()}


def named(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by name, those of its partner too."""
    tensors = {f"view {number}": view for number, view in enumerate(batch.views)}
    tensors |= {"index": batch.index, "label": batch.label}
    if batch.partner is not None and batch.box is not None:
        tensors |= {"box": batch.box} | {f"partner {name}": tensor for name, tensor in named(batch.partner).items()}
    return tensors


def unnamed(tensors: Mapping[str, Tensor], seed: int) -> Batch:
    """The batch that `named` took apart."""
    partner = {name.removeprefix("partner "): t for name, t in tensors.items() if name.startswith("partner ")}
    views = tuple(tensors[f"view {number}"] for number in range(sum(name.startswith("view ") for name in tensors)))
    other = unnamed(partner, seed) if partner else None
    return Batch(views, tensors["index"], tensors["label"], seed, other, tensors.get("box"))
