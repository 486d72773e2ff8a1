"""From uint8 crops to normalised views: the photometric part of the pipeline, in batch, on the device of the crops.

The order is that of torchvision's MoCo v2 recipe: jitter (its four operations in each sample's own order), grey, blur,
solarise, channel permutation, normalise. `color.py` and `blur.py` define the operations; here they are scheduled:

    CPU       each picture passes through its own operations alone while it is in a core's cache, by `color_kernels.py`,
              in threads that hold no lock.
    fused     every sample passes through every operation and keeps the results that it wants. That is more arithmetic
              in few kernels, without lists of samples, and what torch.compile turns into a handful of passes. For CUDA,
              and for a CPU without Numba.

The two agree to rounding, and a test holds them to it. C = 3 colours, N = samples, P = pixels of a view, V = views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from pipelines.augmentation.blur import gaussian_blur, kernel_radius
from pipelines.augmentation.color import JITTER, grayscale, permute_channels, solarize
from pipelines.compiled import compiled
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

_SLICES = 4  # slices of a view per thread: samples differ in what happens to them


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
        compile: compile the fused schedule, where it is the one that runs.
        threads: that share the work on a CPU.
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
        threads: int = 1,
    ) -> None:
        self.operations = tuple(Operations.of(view) for view in views)
        self.device, self.dtype = device, dtype
        deviation = 255 * torch.tensor(std, dtype=torch.float32, device=device)
        self.scale_C = 1 / deviation
        self.shift_C = -255 * torch.tensor(mean, dtype=torch.float32, device=device) / deviation
        self._fused: Callable[..., Tensor] = fused
        self._threads = None
        if device.type == "cpu" and find_spec("numba") is not None:
            self._count = threads
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="likeness-augment")
        elif compile:
            self._fused = compiled(fused, "the augmentation")

    @property
    def note(self) -> str:
        """What to tell before the first batch: why it takes long, if it will."""
        if self._threads is None:
            return ""
        from pipelines.augmentation.color_kernels import compiled_before  # here, because it needs Numba

        first = "; the augmentation is compiled for this machine at the first batch, about 20 s, once"
        return "" if compiled_before() else first

    def __call__(self, images: Sequence[Tensor], numbers_VSP: Tensor) -> tuple[Tensor, ...]:
        """Augments one batch.

        Args:
            images: for each view uint8 [S, 3, size, size], any memory layout, on the device.
            numbers_VSP: float32 [V, S, NUMBERS] on the host, columns as in `photometric.py`.

        Returns:
            for each view [S, 3, size, size] of `dtype`, channels-last.
        """
        if self._threads is not None:
            return self._on_cpu(self._threads, images, numbers_VSP)
        if self.device.type != "cpu":
            numbers_VSP = numbers_VSP.pin_memory().to(self.device, non_blocking=True)
        return tuple(
            self._fused(view, numbers, self.scale_C, self.shift_C, operations, self.dtype)
            for view, numbers, operations in zip(images, numbers_VSP, self.operations, strict=True)
        )

    def _on_cpu(self, threads: ThreadPoolExecutor, images: Sequence[Tensor], numbers_VSP: Tensor) -> tuple[Tensor, ...]:
        """Every view in slices that the threads share, written in the views' type by the kernels."""
        from pipelines.augmentation import color_kernels  # here, because it needs Numba

        rounds = self.dtype == torch.bfloat16  # NumPy has no such type: the kernels write its bits
        scale_C, shift_C = self.scale_C.numpy(), self.shift_C.numpy()
        table = torch.arange(256, dtype=torch.float32)[:, None] * self.scale_C + self.shift_C
        levels = (table.bfloat16().view(torch.uint16) if rounds else table).numpy()
        outputs: list[Tensor] = []
        running: list[Future[None]] = []
        for view, numbers, operations in zip(images, numbers_VSP.numpy(), self.operations, strict=True):
            count, _, height, width = view.shape
            out = torch.empty((count, height, width, 3), dtype=torch.uint16 if rounds else torch.float32)
            pixels = view.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
            jitter = np.isin(range(4), operations.jitter)
            step = max(1, -(-count // (self._count * _SLICES)))
            for start in range(0, count, step):
                running.append(
                    threads.submit(
                        color_kernels.augment, pixels, numbers, scale_C, shift_C, jitter, operations.blur_radius,
                        levels, rounds, out.numpy(), start, min(start + step, count),
                    )
                )  # fmt: skip
            outputs.append(out.permute(0, 3, 1, 2))
        for part in running:
            part.result()
        return tuple(out.view(torch.bfloat16) if rounds else out.to(self.dtype) for out in outputs)

    def close(self) -> None:
        """Ends the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)


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
