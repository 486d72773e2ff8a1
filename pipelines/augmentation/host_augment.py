"""Runs the kernels of `color_kernels.py` on a batch, in threads that hold no lock.

C = 3 colours, N = samples of a view, V = views, K = photometric numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation.operations import Normalization, Operations
from pipelines.executors.executor import Images, as_views
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import View

_SLICES = 4  # slices of a view per thread, because samples differ in the work that they need


class HostAugment:
    """Augments the views of batches on a CPU: each picture passes through its own operations alone; an `Augment`."""

    def __init__(self, views: Sequence[View], normalization: Normalization, dtype: torch.dtype, threads: int) -> None:
        self._operations = [Operations.of(view) for view in views]
        self._normalization, self._dtype, self._count = normalization, dtype, threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="likeness-augment")

    @property
    def note(self) -> str:
        """A text for the user, if the kernels are not compiled yet."""
        from pipelines.augmentation.color_kernels import compiled_before  # here, because it imports Numba

        first = "; the augmentation is compiled for this machine before the first batch, about 20 s, once"
        return "" if compiled_before() else first

    def numbers(self, images: Images, plan: BatchPlan) -> list[NDArray[Any]]:
        """Return the photometric numbers."""
        return [plan.photometric_VSP]

    def __call__(self, images: Images, numbers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the kernels on slices of every view; they write in the views' dtype."""
        from pipelines.augmentation import color_kernels  # here, because it imports Numba

        [numbers_VNK] = numbers
        rounds = self._dtype == torch.bfloat16  # NumPy has no bfloat16, so the kernels write its bits
        scale_C, shift_C = self._normalization
        table = torch.arange(256, dtype=torch.float32)[:, None] * scale_C + shift_C
        levels = (table.bfloat16().view(torch.uint16) if rounds else table).numpy()
        outputs: list[Tensor] = []
        running: list[Future[None]] = []
        for view, numbers_NK, operations in zip(as_views(images), numbers_VNK.numpy(), self._operations, strict=True):
            count, _, height, width = view.shape
            out = torch.empty((count, height, width, 3), dtype=torch.uint16 if rounds else torch.float32)
            pixels = view.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
            jitter = np.isin(range(4), operations.jitter)
            step = max(1, -(-count // (self._count * _SLICES)))
            for start in range(0, count, step):
                future = self._threads.submit(
                    color_kernels.augment,
                    pixels,
                    numbers_NK,
                    scale_C.numpy(),
                    shift_C.numpy(),
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
        return tuple(out.view(torch.bfloat16) if rounds else out.to(self._dtype) for out in outputs)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True)
