"""From uint8 crops to normalised views: the photometric part of the pipeline, in batch, on the device of the crops.

The order is that of torchvision's MoCo v2 recipe: jitter (its four operations in each sample's own order), grey, blur,
solarise, channel permutation, normalise. `color.py` and `blur.py` define the operations; here they are scheduled:

    grouped   samples that need the same operation are gathered, the others are left alone. Which they are is known on
              the host, where the plan makes the numbers. Blocks of samples stay in the CPU's cache.
    fused     every sample passes through every operation and keeps the results that it wants. That is more arithmetic
              in few kernels, without lists of samples, and what torch.compile turns into a handful of passes.

A CPU runs the first and CUDA the second: the two agree to rounding, and a test holds them to it on both devices.
C = 3 colours, N = samples, P = pixels of a view, V = views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.blur import gaussian_blur, kernel_radius
from pipelines.color import JITTER, grayscale, permute_channels, solarize
from pipelines.compiled import compiled
from pipelines.photometric import (
    BLUR,
    CHANNEL_ORDERS,
    GRAYSCALE,
    HUE,
    JITTER_ORDERS,
    ORDER,
    PERMUTE,
    SOLARIZE,
)
from pipelines.views import View

BLOCK = 1 << 20  # values of a block on the CPU: with its temporaries it stays in the cache and in recycled memory


@dataclass(frozen=True)
class Operations:
    """What can happen to a view at all. It is known before any number is drawn: what cannot happen costs nothing.

    Attributes:
        jitter: the operations of ColorJitter, by their columns of the numbers, whose strength is not zero.
        grayscale, solarize, permute: whether some samples get it.
        blur_radius: taps beside the centre of the Gaussian, 0 where no sample is blurred.
    """

    jitter: tuple[int, ...]
    grayscale: bool
    blur_radius: int
    solarize: bool
    permute: bool

    @classmethod
    def of(cls, view: View) -> Operations:
        jitter = tuple(i for i in range(4) if view.jitter[i] > 0 and view.jitter_p > 0)
        radius = kernel_radius(view.blur_sigma[1], view.size) if view.blur_p > 0 else 0
        return cls(jitter, view.grayscale_p > 0, radius, view.solarize_p > 0, view.permute_p > 0)


class Augment:
    """Turns the crops of every view into normalised views, channels-last in memory, owned by the caller.

    Args:
        views: their descriptions.
        mean, std: of the colours, on the scale 0 to 1.
        device: where the crops are and the views stay.
        dtype: of the views.
        compile: compile the fused schedule, on CUDA. A CPU runs the grouped one, which is faster there even uncompiled.
    """

    def __init__(
        self,
        views: Sequence[View],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compile: bool = False,
    ) -> None:
        self.operations = tuple(Operations.of(view) for view in views)
        self.device, self.dtype = device, dtype
        deviation = 255 * torch.tensor(std, dtype=torch.float32, device=device)
        self.scale_C = 1 / deviation
        self.shift_C = -255 * torch.tensor(mean, dtype=torch.float32, device=device) / deviation
        self._fused: Callable[..., Tensor] = fused
        if compile and device.type != "cpu":
            self._fused = compiled(fused, "the augmentation")

    def __call__(self, images: Sequence[Tensor], numbers_VSP: Tensor) -> tuple[Tensor, ...]:
        """Augments one batch.

        Args:
            images: for each view uint8 [S, 3, size, size], any memory layout, on the device.
            numbers_VSP: float32 [V, S, NUMBERS] on the host, columns as in `photometric.py`.

        Returns:
            for each view [S, 3, size, size] of `dtype`, channels-last.
        """
        if self.device.type == "cpu":
            schedule: Callable[..., Tensor] = grouped
        else:
            schedule = self._fused
            numbers_VSP = numbers_VSP.pin_memory().to(self.device, non_blocking=True)
        return tuple(
            schedule(view, numbers, self.scale_C, self.shift_C, operations, self.dtype)
            for view, numbers, operations in zip(images, numbers_VSP, self.operations, strict=True)
        )


def grouped(
    images: Tensor, numbers: Tensor, scale_C: Tensor, shift_C: Tensor, operations: Operations, dtype: torch.dtype
) -> Tensor:
    """The grouped schedule: arguments as in `fused`, numbers on the host."""
    count, _, height, width = images.shape
    out = torch.empty((count, 3, height, width), dtype=dtype, device=images.device, memory_format=torch.channels_last)
    block = max(1, BLOCK // (3 * height * width))
    for start in range(0, count, block):
        part = slice(start, min(start + block, count))
        x_CNP = _grouped_colors(images[part], numbers[part], operations)
        x_CNP.mul_(scale_C[:, None, None]).add_(shift_C[:, None, None])
        out[part].copy_(x_CNP.view(3, -1, height, width).transpose(0, 1))
    return out


def _grouped_colors(images: Tensor, numbers: Tensor, operations: Operations) -> Tensor:
    """Everything but the normalisation of one block: float32 [3, N, P], 0 to 255."""
    _, _, height, width = images.shape
    host = numbers.numpy()
    x_CNP = _planes(images)
    if operations.jitter:
        for order, chosen in _jitter_groups(host):
            group_CNP, factors = x_CNP.index_select(1, chosen), numbers[chosen]
            for operation in JITTER_ORDERS[order]:
                if operation in operations.jitter:
                    group_CNP = JITTER[operation](group_CNP, factors[:, operation, None])
            x_CNP.index_copy_(1, chosen, group_CNP)
    if operations.grayscale and len(chosen := _where(host[:, GRAYSCALE] > 0)):
        x_CNP.index_copy_(1, chosen, grayscale(x_CNP.index_select(1, chosen)))
    if operations.blur_radius and len(chosen := _where(host[:, BLUR] > 0)):
        sharp = x_CNP.index_select(1, chosen).view(3, -1, height, width)
        soft = gaussian_blur(sharp, numbers[chosen, BLUR], operations.blur_radius)
        x_CNP.index_copy_(1, chosen, soft.flatten(2))
    if operations.solarize and len(chosen := _where(host[:, SOLARIZE] < 256)):
        x_CNP.index_copy_(1, chosen, solarize(x_CNP.index_select(1, chosen), numbers[chosen, SOLARIZE, None]))
    if operations.permute and host[:, PERMUTE].any():
        x_CNP = permute_channels(x_CNP, _channel_order(numbers))
    return x_CNP


def fused(
    images: Tensor, numbers: Tensor, scale_C: Tensor, shift_C: Tensor, operations: Operations, dtype: torch.dtype
) -> Tensor:
    """The fused schedule: no decision depends on the value of a tensor, so nothing waits for the device.

    Args:
        images: uint8 [N, 3, height, width].
        numbers: float32 [N, NUMBERS], on the same device.
        scale_C, shift_C: the normalised value of v is v * scale + shift.
        operations: what can happen at all.
        dtype: of the result.

    Returns:
        [N, 3, height, width], channels-last.
    """
    _, _, height, width = images.shape
    x_CNP = _planes(images)
    if operations.jitter:
        order_NS = torch.tensor(JITTER_ORDERS, device=images.device)[numbers[:, ORDER].long()]
        for slot in range(4):
            # Where nothing is selected the sample's operation of this slot has no strength in this view.
            changed = x_CNP
            for operation in operations.jitter:
                candidate = JITTER[operation](x_CNP, numbers[:, operation, None])
                changed = torch.where(order_NS[:, slot, None] == operation, candidate, changed)
            x_CNP = changed
    if operations.grayscale:
        x_CNP = torch.where(numbers[:, GRAYSCALE, None] > 0, grayscale(x_CNP), x_CNP)
    if operations.blur_radius:
        sharp = x_CNP.view(3, -1, height, width)
        x_CNP = gaussian_blur(sharp, numbers[:, BLUR], operations.blur_radius).flatten(2)
    if operations.solarize:
        x_CNP = solarize(x_CNP, numbers[:, SOLARIZE, None])
    if operations.permute:
        x_CNP = permute_channels(x_CNP, _channel_order(numbers))
    x_CNP = (x_CNP * scale_C[:, None, None] + shift_C[:, None, None]).to(dtype)
    return x_CNP.view(3, -1, height, width).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _planes(images: Tensor) -> Tensor:
    """float32 [3, N, P], colour planes first, of uint8 [N, 3, H, W]."""
    planes = images.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return planes.flatten(2)


def _channel_order(numbers: Tensor) -> Tensor:
    """[3, N] input channels of each output channel."""
    return torch.tensor(CHANNEL_ORDERS, device=numbers.device)[numbers[:, PERMUTE].long()].T


def _jitter_groups(numbers: NDArray[np.float32]) -> list[tuple[int, Tensor]]:
    """The samples that share an order of jitter operations, without those that get no jitter."""
    jittered = (numbers[:, :HUE] != 1).any(1) | (numbers[:, HUE] != 0)
    orders = np.where(jittered, numbers[:, ORDER], -1).astype(np.int64)
    return [(int(order), _where(orders == order)) for order in np.unique(orders) if order >= 0]


def _where(chosen: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen))
