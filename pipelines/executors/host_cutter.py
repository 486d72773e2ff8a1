"""Cuts the views of batches on a CPU, in threads, from images that lie in its memory.

Memory: one decode buffer of the largest image per thread, and the batches that the loader keeps ahead.
S = samples of a batch (anchors and partners), V = views.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors.cut_kernel import compiled_cut
from pipelines.executors.decode import decoding_threads
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import RESIZE, View

_SLICES = 4  # slices of a batch per thread; a thread whose images are small takes more slices


class Located(NamedTuple):
    """The images of a batch: what compiled code needs to read each of them at its address.

    Attributes:
        address: [S] int64, where its first byte lies.
        mode: [S] uint8, `JPEG`, `RAW`, or another number where the image is known to be damaged.
        length: [S], bytes of a JPEG.
        height, width: [S], sides in pixels.
        held: the object that keeps the memory.
    """

    address: NDArray[np.int64]
    mode: NDArray[np.uint8]
    length: NDArray[np.integer]
    height: NDArray[np.integer]
    width: NDArray[np.integer]
    held: object


class HostCutter:
    """Cuts views with the compiled function of `cut_kernel.py`.

    Args:
        views: their sizes and filters are used; boxes and flips come with each batch.
        threads: number of threads.
        largest: bytes of the largest image that must be decoded.
        pin: whether the output is page-locked, for copies to a GPU.

    Raises:
        ModuleNotFoundError: FFCV is not installed.
    """

    def __init__(self, views: tuple[View, ...], threads: int, largest: int = 0, pin: bool = False) -> None:
        self._pin, self._count = pin, threads
        self._sizes = np.array([view.size for view in views], dtype=np.int64)
        self._filters = np.array([RESIZE.index(view.resize) for view in views], dtype=np.int64)
        self._cut = compiled_cut()
        self._scratch: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()  # a decode buffer for each thread
        for _ in range(threads):
            self._scratch.put(np.empty(largest, dtype=np.uint8))
        self._threads = decoding_threads(threads)
        self._slices: list[Future[None]] = []  # of batches under way

    def start(
        self, images: Located, plan: BatchPlan, damaged: Callable[[slice], NDArray[np.bool_]] | None = None
    ) -> Callable[[], tuple[list[Tensor], NDArray[np.bool_]]]:
        """Give a batch to the threads and return a function that waits for it.

        That function returns one tensor [S, 3, size, size] uint8 for each view, channels-last in memory, and which
        samples are damaged [S]. Views of the same size are adjacent in one block of memory, which the caller owns.

        Args:
            damaged: called in a thread before a slice of the batch is decoded, returns which of its images are damaged.
        """
        samples = len(plan.source_S)
        output, offset_V = self._allocate(samples)
        pixels, bad_S = output.numpy(), np.zeros(samples, dtype=np.bool_)

        def work(start: int, stop: int) -> None:  # it keeps `images`, and so the memory that they lie in
            if damaged is not None:
                bad_S[start:stop] = damaged(slice(start, stop))
            scratch = self._scratch.get()
            try:
                self._cut(
                    images.address,
                    images.mode,
                    images.length,
                    images.height,
                    images.width,
                    plan.crop_VS4,
                    plan.flip_VS,
                    self._sizes,
                    self._filters,
                    offset_V,
                    pixels,
                    bad_S,
                    scratch,
                    start,
                    stop,
                )
            finally:
                self._scratch.put(scratch)

        step = max(1, -(-samples // (self._count * _SLICES)))
        slices = [self._threads.submit(work, start, min(start + step, samples)) for start in range(0, samples, step)]
        self._slices = [running for running in self._slices if not running.done()] + slices

        def finish() -> tuple[list[Tensor], NDArray[np.bool_]]:
            for running in slices:
                running.result()
            views = [
                output[first : first + samples * size * size * 3].view(samples, size, size, 3).permute(0, 3, 1, 2)
                for first, size in zip(offset_V.tolist(), self._sizes.tolist(), strict=True)
            ]
            return views, bad_S

        return finish

    def close(self) -> None:
        """Wait for slices that are being cut."""
        for running in self._slices:
            running.cancel()
        wait(self._slices)

    def _allocate(self, samples: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Return one batch's output as flat memory, and the offset of each view in it: largest views first."""
        volume_V = samples * 3 * self._sizes**2
        order = np.argsort(-self._sizes, kind="stable")
        offset_V = np.empty_like(volume_V)
        offset_V[order] = np.concatenate([[0], np.cumsum(volume_V[order])[:-1]])
        return torch.empty(int(volume_V.sum()), dtype=torch.uint8, pin_memory=self._pin), offset_V
