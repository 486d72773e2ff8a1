"""Collectives whose results are in the order of the global batch, whatever the number of processes.

The processes hold interleaved shares of a global batch: sample n = m * W + r is the m-th of rank r. A split batch norm
with interleaved groups, a shuffle and a queue then see the same samples in the same order with 1 or W processes. Every
function is the identity where torch.distributed is not initialised or has one process.

Shapes: W processes, B samples of this process, N = W * B samples of all, D features; `...` any further dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Newer versions of torch have renamed this collective and warn about the old name.
_all_gather = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)


def world() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) outside torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def local_rows(global_N: Tensor) -> Tensor:
    """Return this process's samples [B, ...] of a global batch [N, ...], as a view; the inverse of `gather`."""
    rank, processes = world()
    return global_N[rank::processes]


def positions(count: int, device: torch.device | str | None = None) -> Tensor:
    """Return [B] int64, the positions in the global batch of this process's `count` samples."""
    rank, processes = world()
    return torch.arange(count, device=device) * processes + rank


@torch.no_grad()
def gather(local_B: Tensor) -> Tensor:
    """Gather [B, ...] from every process to [N, ...] in the order of the global batch, without gradient.

    Every process must bring the same B; row m * W + r of the result is row m of rank r.
    """
    _, processes = world()
    if processes == 1:
        return local_B.detach()
    return all_gather(local_B).transpose(0, 1).flatten(0, 1)


class _Gather(torch.autograd.Function):
    """`gather` whose backward pass sums the gradients that all processes have for this process's rows."""

    @staticmethod
    def forward(ctx: Any, local_B: Tensor) -> Tensor:
        return gather(local_B)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total_N = grads[0].contiguous().clone()
        dist.all_reduce(total_N)
        return local_rows(total_N).contiguous()


def gather_with_gradient(local_B: Tensor) -> Tensor:
    """`gather` that passes gradients: each row's gradient is the sum over processes of their gradients for it.

    Where the loss is a mean over each process's own rows, or the same loss of the global batch on every process, the
    gradient that DDP averages over processes equals that of one process with the whole batch.
    """
    if world()[1] == 1:
        return local_B
    gathered: Tensor = _Gather.apply(local_B)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return gathered


@torch.no_grad()
def all_gather(own: Tensor) -> Tensor:
    """Stack tensors [...] of one shape from all processes to [W, ...], by rank, bit for bit equal on all of them."""
    processes = world()[1]
    if processes == 1 or _all_gather is None:
        return own.detach()[None]
    stacked = own.new_empty((processes * own.numel(),))
    _all_gather(stacked, own.detach().contiguous().flatten())
    return stacked.view(processes, *own.shape)


@torch.no_grad()
def broadcast(own: Tensor, source: int) -> Tensor:
    """Return the tensor of process `source` on all processes; the others pass memory of its shape to be filled."""
    if world()[1] > 1:
        own = own.detach().contiguous()
        dist.broadcast(own, source)
    return own


@torch.no_grad()
def sum_over_processes(value: Tensor) -> Tensor:
    """Return the elementwise sum over processes, a new tensor without gradient."""
    total = value.detach().clone()
    if world()[1] > 1:
        dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the elementwise mean over processes, a new tensor without gradient; for logs and running statistics."""
    return sum_over_processes(value) / world()[1]
