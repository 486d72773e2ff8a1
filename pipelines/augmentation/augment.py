"""From uint8 crops to normalised views: the photometric half of the data path, in batches, on the device of the crops.

The order of the operations is that of torchvision's MoCo v2 recipe: jitter (its four operations in each sample's own
order), grey, blur, solarise, channel permutation, normalise. `color.py` and `blur.py` define the operations. There are
three ways to run them:

    CPU       each picture passes through its own operations alone while it is in a core's cache, in `color_kernels.py`,
              by threads that hold no lock
    CUDA      three kernels for all views of one size, in `triton_kernels.py`
    torch     every sample passes through every operation and keeps the results that it needs. The reference, for a CPU
              without Numba, a GPU without Triton, and other devices

They agree to rounding, which tests check. None is compiled or traced by torch: the thread that augments may run while
another one compiles.
C = 3 colours, N = samples of a view, P = pixels of a view, V = views, K = photometric numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipelines.augmentation.blur import gaussian_blur, kernel_radius
from pipelines.augmentation.color import JITTER, grayscale, permute_channels, solarize
from pipelines.plan.photometric import (
    BLUR,
    CHANNEL_ORDERS,
    GRAYSCALE,
    JITTER_ORDERS,
    ORDER,
    PERMUTE,
    SOLARIZE,
)
from pipelines.plan.views import View

if TYPE_CHECKING:
    from pipelines.augmentation.triton_augment import TritonAugment

_SLICES = 4  # slices of a view per thread, because samples differ in the work that they need


@dataclass(frozen=True)
class Operations:
    """Which operations a view can have at all, known before any number is drawn; the others are never run.

    Attributes:
        jitter: the operations of ColorJitter with a strength above zero, named by their columns of the numbers.
        grayscale, solarize, permute: whether the operation has a probability above zero.
        blur_radius: taps on each side of the Gaussian's centre, in pixels; 0 = no blur.
    """

    jitter: tuple[int, ...]
    grayscale: bool
    blur_radius: int
    solarize: bool
    permute: bool

    @classmethod
    def of(cls, view: View) -> Operations:
        """Return the operations that a view can have."""
        jitter = tuple(i for i in range(4) if view.jitter[i] > 0 and view.jitter_p > 0)
        radius = kernel_radius(view.blur_sigma[1], view.size) if view.blur_p > 0 else 0
        return cls(jitter, view.grayscale_p > 0, radius, view.solarize_p > 0, view.permute_p > 0)


class Augment:
    """Turns the crops of every view into normalised views, channels-last in memory; the caller owns them.

    Args:
        views: the descriptions of the views.
        mean, std: of red, green and blue, on the scale 0 to 1.
        device: where the crops lie and the views are made.
        dtype: of the views.
        threads: number of threads that share the work on a CPU.
    """

    def __init__(
        self,
        views: Sequence[View],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        threads: int = 1,
    ) -> None:
        self.operations = tuple(Operations.of(view) for view in views)
        self.device, self.dtype = device, dtype
        deviation = 255 * torch.tensor(std, dtype=torch.float32, device=device)
        self.scale_C = 1 / deviation
        self.shift_C = -255 * torch.tensor(mean, dtype=torch.float32, device=device) / deviation
        self._threads: ThreadPoolExecutor | None = None
        self._triton: TritonAugment | None = None
        if device.type == "cpu" and find_spec("numba") is not None:
            self._count = threads
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="likeness-augment")
        elif device.type == "cuda" and find_spec("triton") is not None:
            from pipelines.augmentation.triton_augment import TritonAugment  # here, because only GPUs have Triton

            plain = [not (own.jitter or own.grayscale or own.blur_radius) for own in self.operations]
            radius = [own.blur_radius for own in self.operations]
            self._triton = TritonAugment(plain, radius, self.scale_C, self.shift_C, dtype)

    @property
    def note(self) -> str:
        """A text for the user, if the first batch or all of them take longer than they could: why they do."""
        if self._threads is None:
            slow = self.device.type == "cuda" and self._triton is None
            return "; Triton is not installed, so the augmentation takes several times as long" if slow else ""
        from pipelines.augmentation.color_kernels import compiled_before  # here, because it imports Numba

        first = "; the augmentation is compiled for this machine at the first batch, about 20 s, once"
        return "" if compiled_before() else first

    def __call__(self, images: Sequence[Tensor], numbers_VNK: Tensor) -> tuple[Tensor, ...]:
        """Augment one batch.

        Args:
            images: for each view uint8 [N, 3, size, size], any memory layout, on the device.
            numbers_VNK: float32 [V, N, NUMBERS] on the host, columns as in `photometric.py`.

        Returns:
            for each view [N, 3, size, size] of `dtype`, channels-last.
        """
        if self._threads is not None:
            return self._on_cpu(self._threads, images, numbers_VNK)
        if self._triton is not None:
            return self._triton(images, numbers_VNK)
        if self.device.type != "cpu":
            numbers_VNK = numbers_VNK.pin_memory().to(self.device, non_blocking=True)
        return tuple(
            fused(view, numbers, self.scale_C, self.shift_C, operations, self.dtype)
            for view, numbers, operations in zip(images, numbers_VNK, self.operations, strict=True)
        )

    def _on_cpu(self, threads: ThreadPoolExecutor, images: Sequence[Tensor], numbers_VNK: Tensor) -> tuple[Tensor, ...]:
        """Run the kernels on slices of every view in threads; they write in the views' dtype."""
        from pipelines.augmentation import color_kernels  # here, because it imports Numba

        rounds = self.dtype == torch.bfloat16  # NumPy has no bfloat16, so the kernels write its bits
        scale_C, shift_C = self.scale_C.numpy(), self.shift_C.numpy()
        table = torch.arange(256, dtype=torch.float32)[:, None] * self.scale_C + self.shift_C
        levels = (table.bfloat16().view(torch.uint16) if rounds else table).numpy()
        outputs: list[Tensor] = []
        running: list[Future[None]] = []
        for view, numbers, operations in zip(images, numbers_VNK.numpy(), self.operations, strict=True):
            count, _, height, width = view.shape
            out = torch.empty((count, height, width, 3), dtype=torch.uint16 if rounds else torch.float32)
            pixels = view.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
            jitter = np.isin(range(4), operations.jitter)
            step = max(1, -(-count // (self._count * _SLICES)))
            for start in range(0, count, step):
                future = threads.submit(
                    color_kernels.augment,
                    pixels,
                    numbers,
                    scale_C,
                    shift_C,
                    jitter,
                    operations.blur_radius,
                    levels,
                    rounds,
                    out.numpy(),
                    start,
                    min(start + step, count),
                )
                running.append(future)
            outputs.append(out.permute(0, 3, 1, 2))
        for future in running:
            future.result()
        return tuple(out.view(torch.bfloat16) if rounds else out.to(self.dtype) for out in outputs)

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)


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
