"""A run's complete state copied into host memory, where later steps do not change it, for the checkpoint writer.

Memory: one copy of the state, kept between snapshots so that it is allocated only once. On a GPU it is page-locked, and
the copies are queued without the host waiting for each of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.method import Method
from pipelines.plan.pairing import Pairing


@dataclass(frozen=True)
class Snapshot:
    """Everything that a checkpoint holds.

    Attributes:
        step: optimizer steps done.
        state: JSON of the run's state, with the optimizer's numbers.
        model: everything the method trains with: student, teachers, queues.
        optimizer: the optimizer's tensors, named "parameter.entry".
        pairing: partners, if the method has any.
    """

    step: int
    state: str
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pairing: Pairing | None


class HostCopy:
    """Takes snapshots, each into the memory of the one before: at most one of them may be in use."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def take(self, method: Method, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Snapshot:
        """Return the state as it is now; synchronises with the device once.

        Args:
            state: must hold "step"; everything in it must be JSON.
        """
        tensors, numbers = split_optimizer(optimizer)
        text = json.dumps(dict(state) | {"optimizer": numbers})
        model = {name: self._copy(f"model {name}", tensor) for name, tensor in method.state_dict().items()}
        copied = {name: self._copy(f"optimizer {name}", tensor) for name, tensor in tensors.items()}
        if any(parameter.is_cuda for parameter in method.parameters()):
            torch.cuda.current_stream().synchronize()
        return Snapshot(state["step"], text, model, copied, method.pairing)

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        kept = self._memory.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._memory[name] = kept
        return kept.copy_(tensor.detach(), non_blocking=tensor.is_cuda)


def split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's state as named tensors, and the remaining numbers."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for number, entries in state["state"].items():
        for entry, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{entry}"] = value
            else:
                numbers.setdefault(str(number), {})[entry] = value
    groups = [
        {name: float(value) if isinstance(value, Tensor) else value for name, value in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"state": numbers, "param_groups": groups}
