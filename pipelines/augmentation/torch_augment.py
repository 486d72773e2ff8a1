"""The photometric operations by torch: the reference, for a CPU without Numba, a GPU without Triton, other devices.

Every sample passes through every operation and keeps the results that it needs.
C = 3 colours, N = samples of a view, P = pixels of a view, V = views, K = photometric numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation.blur import gaussian_blur
from pipelines.augmentation.color import JITTER, grayscale, permute_channels, solarize
from pipelines.augmentation.operations import Normalization, Operations
from pipelines.executors.executor import Images, as_views
from pipelines.plan.photometric import BLUR, CHANNEL_ORDERS, GRAYSCALE, JITTER_ORDERS, ORDER, PERMUTE, SOLARIZE
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import View


class TorchAugment:
    """Augments the views of batches on the device where they lie; an `Augment`."""

    def __init__(self, views: Sequence[View], normalization: Normalization, dtype: torch.dtype) -> None:
        self._operations = [Operations.of(view) for view in views]
        self._normalization, self._dtype = normalization, dtype
        on_gpu = normalization.scale_C.is_cuda
        self.note = "; Triton is not installed, so the augmentation takes several times as long" if on_gpu else ""

    def numbers(self, images: Images, plan: BatchPlan) -> list[NDArray[Any]]:
        """Return the photometric numbers."""
        return [plan.photometric_VSP]

    def __call__(self, images: Images, numbers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Augment one batch."""
        [numbers_VNK] = numbers
        return tuple(
            fused(view, numbers_NK, *self._normalization, operations, self._dtype)
            for view, numbers_NK, operations in zip(as_views(images), numbers_VNK, self._operations, strict=True)
        )

    def close(self) -> None:
        """Nothing is to be ended."""


def fused(
    images: Tensor, numbers: Tensor, scale_C: Tensor, shift_C: Tensor, operations: Operations, dtype: torch.dtype
) -> Tensor:
    """Augment one view by torch: no branch depends on the value of a tensor, so nothing waits for the device.

    Args:
        images: uint8 [N, 3, height, width].
        numbers: float32 [N, NUMBERS], on the same device.
        scale_C, shift_C: the normalised value of v is v * scale + shift.
        operations: which operations the view can have.
        dtype: of the result.

    Returns:
        [N, 3, height, width], channels-last.
    """
    _, _, height, width = images.shape
    x_CNP = _planes(images)
    if operations.jitter:
        order_NS = _table(JITTER_ORDERS, images.device)[numbers[:, ORDER].long()]
        for slot in range(4):
            # A sample for which no candidate is selected has an operation of strength zero in this slot.
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
    """Return uint8 [N, 3, H, W] as float32 [3, N, P], colour planes first."""
    planes = images.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return planes.flatten(2)


def _channel_order(numbers: Tensor) -> Tensor:
    """Return the input channel of each output channel: int64 [3, N]."""
    return _table(CHANNEL_ORDERS, numbers.device)[numbers[:, PERMUTE].long()].T


@cache
def _table(rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Return a table on the device, where it stays: to send it there each time would wait for the device."""
    return torch.tensor(rows, device=device)
