"""A run's whole state copied into host memory, where no later step changes it: what a checkpoint is written from.

Cost: one copy of the state, held between snapshots so that its memory is not asked for again. On a GPU it is
page-locked, and the copies run behind each other without the host waiting for each.
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
    """All that a checkpoint holds.

    Attributes:
        step: optimizer steps done.
        state: JSON of where the run is, with the optimizer's numbers.
        model: what the method trains with: student, teachers, queues.
        optimizer: its tensors, named "parameter.entry".
        pairing: partners, where the method has them.
    """

    step: int
    state: str
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    pairing: Pairing | None


class HostCopy:
    """Takes snapshots, each into the memory of the one before: at most one of them is in use."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def take(self, method: Method, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Snapshot:
        """The state now; waits for the device once.

        Args:
            state: must hold "step"; what JSON can say.
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
    """The optimizer's state as named tensors, and the numbers beside them."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for number, entries in whole["state"].items():
        for entry, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{entry}"] = value
            else:
                numbers.setdefault(str(number), {})[entry] = value
    groups = [
        {name: float(value) if isinstance(value, Tensor) else value for name, value in group.items()}
        for group in whole["param_groups"]
    ]
    return tensors, {"state": numbers, "param_groups": groups}
