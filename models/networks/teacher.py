"""Momentum teachers: slowly following copies of a network, without gradient.

Parameters follow the student; buffers do not: a teacher runs in training mode and keeps its own batch-norm statistics,
as in the published code of MoCo, MSVQ, CGH and ICCL.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """A momentum copy of a module, called like it and always without gradient.

    Args:
        student: copied deeply (parameters, buffers and structure) and not referenced afterwards.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move every parameter: teacher = momentum * teacher + (1 - momentum) * student, in one fused pass.

        Raises:
            ValueError: a momentum outside 0 to 1, or a student with other parameters.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"teacher momentum is {momentum}; give 0 (copy the student) to 1 (never move)")
        self.follow(student, 1 - momentum)

    @torch.no_grad()
    def follow(self, student: nn.Module, share: float | Tensor) -> None:
        """Move every parameter by a share of its distance to the student's.

        Args:
            share: one minus the momentum; a tensor [] where it changes from step to step of a recording.

        Raises:
            ValueError: a student with other parameters.
        """
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(student.parameters())
        if [p.shape for p in mine] != [p.shape for p in theirs]:
            raise ValueError("teacher and student differ in their parameters; make the teacher from this student")
        if not mine:
            return
        if isinstance(share, Tensor):
            moves = torch._foreach_sub(theirs, mine)
            torch._foreach_mul_(moves, share)
            torch._foreach_add_(mine, moves)
        else:
            torch._foreach_lerp_(mine, theirs, share)


def cosine_momentum(step: int, total: int, start: float) -> float:
    """Return BYOL's momentum at `step` of `total`: from `start` to 1 along half a cosine (arXiv 2006.07733)."""
    if total < 1:
        raise ValueError(f"momentum schedule over {total} steps; give at least 1")
    return 1 - (1 - start) * (math.cos(math.pi * min(step, total) / total) + 1) / 2
