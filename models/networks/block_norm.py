"""Batch norm of groups that are contiguous in the batch: no copies, and each group stays in the cache.

A split batch norm has interleaved groups (sample n belongs to group n mod S). In channels-last memory such a group is
scattered, and gathering it costs more than the norm itself. So a network sorts its batch once, at its input:
`to_blocks` makes the samples of a group contiguous, and `from_blocks` undoes that at the output.

Shapes: N samples, S groups, C channels, H x W pixels of a map, P pixels of all samples of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def to_blocks(x_N: Tensor, splits: int) -> Tensor:
    """Sort [N, ...] from interleaved groups to contiguous groups; channels-last memory stays channels-last.

    Raises:
        ValueError: the groups do not divide the batch.
    """
    if splits > 1 and len(x_N) % splits:
        raise ValueError(f"a batch of {len(x_N)} does not divide into the {splits} groups of the batch norm")
    return _transposed(x_N, x_N.shape[0] // splits, splits)  # an exporter would take len(x_N) for a constant


def from_blocks(x_N: Tensor, splits: int) -> Tensor:
    """Undo `to_blocks`."""
    return _transposed(x_N, splits, x_N.shape[0] // splits)


def _transposed(x_N: Tensor, rows: int, columns: int) -> Tensor:
    """Return the batch, read as a table [rows, columns] and written column by column."""
    if rows == 1 or columns == 1:
        return x_N
    channels_last = x_N.ndim == 4 and x_N.is_contiguous(memory_format=torch.channels_last)
    rows_N = x_N.permute(0, 2, 3, 1) if channels_last else x_N
    sorted_N = rows_N.reshape(rows, columns, *rows_N.shape[1:]).transpose(0, 1).flatten(0, 1)
    return sorted_N.permute(0, 3, 1, 2) if channels_last else sorted_N


class InterleavedMaps(Mapping[str, Tensor]):
    """Maps of a sorted batch, each restored to the batch's order when it is read; most are never read."""

    def __init__(self, maps: Mapping[str, Tensor], splits: int) -> None:
        self._maps, self._splits = maps, splits

    def __getitem__(self, name: str) -> Tensor:
        return from_blocks(self._maps[name], self._splits)

    def copied(self) -> InterleavedMaps:
        """Return the same maps in memory of their own."""
        return InterleavedMaps({name: map_BCHW.clone() for name, map_BCHW in self._maps.items()}, self._splits)

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)


def block_batch_norm(
    x_NCHW: Tensor, gain_C: Tensor, bias_C: Tensor, mean_SC: Tensor, var_SC: Tensor, momentum: float, eps: float
) -> Tensor:
    """Normalise each block by its own statistics, and update the running statistics [S, C] of each, in place.

    It calls torch's batch norm once for each block, which writes its rows of the result: statistics and normalisation
    of a block read the same memory shortly after each other. Under a compiler the formula is written out instead, to be
    fused with its surroundings.
    """
    if torch.compiler.is_compiling():
        return written_out(x_NCHW, gain_C, bias_C, mean_SC, var_SC, momentum, eps)
    normalised: Tensor = _BlockBatchNorm.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        x_NCHW, gain_C, bias_C, mean_SC, var_SC, momentum, eps
    )
    return normalised


def written_out(
    x_NCHW: Tensor, gain_C: Tensor, bias_C: Tensor, mean_SC: Tensor, var_SC: Tensor, momentum: float, eps: float
) -> Tensor:
    """`block_batch_norm` as an equation, in float32 at least."""
    count, channels, height, width = x_NCHW.shape
    splits = len(mean_SC)
    wide = torch.promote_types(x_NCHW.dtype, torch.float32)
    x_SPC = x_NCHW.permute(0, 2, 3, 1).reshape(splits, -1, channels).to(wide)
    var_S1C, mean_S1C = torch.var_mean(x_SPC, 1, correction=0, keepdim=True)
    y_SPC = (x_SPC - mean_S1C) * (torch.rsqrt(var_S1C + eps) * gain_C) + bias_C
    with torch.no_grad():
        pixels = x_SPC.shape[1]
        mean_SC.lerp_(mean_S1C.squeeze(1).to(mean_SC.dtype), momentum)
        var_SC.lerp_((var_S1C.squeeze(1) * (pixels / (pixels - 1))).to(var_SC.dtype), momentum)
    return y_SPC.to(x_NCHW.dtype).view(count, height, width, channels).permute(0, 3, 1, 2)


class _BlockBatchNorm(torch.autograd.Function):
    """`block_batch_norm` as an autograd function."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NCHW: Tensor,
        gain_C: Tensor,
        bias_C: Tensor,
        mean_SC: Tensor,
        var_SC: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        splits, y_NCHW = len(mean_SC), torch.empty_like(x_NCHW)
        wide = torch.promote_types(x_NCHW.dtype, torch.float32)
        batch_mean_SC, inverse_SC = torch.empty_like(mean_SC, dtype=wide), torch.empty_like(var_SC, dtype=wide)
        blocks = zip(x_NCHW.chunk(splits), y_NCHW.chunk(splits), strict=True)
        for s, (x, y) in enumerate(blocks):
            out = (y, batch_mean_SC[s], inverse_SC[s])
            torch.native_batch_norm(x, gain_C, bias_C, mean_SC[s], var_SC[s], True, momentum, eps, out=out)
        ctx.save_for_backward(x_NCHW, gain_C, mean_SC, var_SC, batch_mean_SC, inverse_SC)
        ctx.eps = eps
        return y_NCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, gain_C, mean_SC, var_SC, batch_mean_SC, inverse_SC = ctx.saved_tensors
        splits, needed = len(mean_SC), ctx.needs_input_grad[:3]
        gradients = [
            torch.ops.aten.native_batch_norm_backward(
                grad, x, gain_C, mean_SC[s], var_SC[s], batch_mean_SC[s], inverse_SC[s], True, ctx.eps, needed
            )
            for s, (grad, x) in enumerate(zip(grad_NCHW.chunk(splits), x_NCHW.chunk(splits), strict=True))
        ]
        grad_x, grad_gain, grad_bias = zip(*gradients, strict=True)
        return (
            torch.cat(grad_x) if needed[0] else None,
            torch.stack(grad_gain).sum(0) if needed[1] else None,
            torch.stack(grad_bias).sum(0) if needed[2] else None,
            None,
            None,
            None,
            None,
        )
