"""The FFCV executor: it decodes each JPEG once and cuts every view of the sample from that decode, as planned.

FFCV's own Loader decodes and compiles once per view, reuses its output buffers, and draws random numbers that no seed
fixes. Here its kernels (libjpeg-turbo, OpenCV's area resize) are called from one compiled function that gets sample
numbers, boxes and flips. The function holds no lock, so a few Python threads run it side by side on slices of a batch.
No global thread count is changed, and two loaders share nothing.

The function reads at memory addresses, so the images may lie in mapped files of any format, or decoded in memory
(`resident.py` on a CPU).

Memory: one decode buffer of the largest image per thread, and the batches that the loader keeps ahead.
S = samples of a batch (anchors and partners), V = views.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import cache
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors import ffcv_kernels
from pipelines.executors.damage import GREY, Damage
from pipelines.executors.decode import decoding_threads
from pipelines.executors.executor import ExecutorSpec
from pipelines.formats.dataset import Dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import JPEG, RAW
from pipelines.formats.inspection import Inspection
from pipelines.memory import free_memory
from pipelines.plan.plan import BatchPlan, Plan
from pipelines.plan.views import View

_SLICES = 4  # slices of a batch per thread; a thread whose images are small takes more slices


class Images(Protocol):
    """Images in memory or in mapped files, which compiled code reads at their addresses.

    Attributes:
        mode: [N] uint8, `JPEG`, `RAW`, or another number where the image is known to be damaged.
    """

    mode: NDArray[np.uint8]

    def addresses(self, numbers_S: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Return the addresses [S] of the images' first bytes, and an object to hold while they are read."""
        ...


class FfcvExecutor:
    """Cuts the views of batches with FFCV's kernels, on the CPU.

    Args:
        dataset: an opened data set of any format.
        views: their sizes are used; boxes and flips come with each batch.
        threads: decoding threads.
        pin: whether the output is page-locked, for copies to a GPU.
        images: where the images lie; None = in the data set's mapped files.

    Raises:
        ValueError: the decode buffers, one of the largest image for each thread, do not fit into memory.
        ModuleNotFoundError: FFCV is not installed.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: tuple[View, ...],
        threads: int,
        pin: bool = False,
        images: Images | None = None,
    ) -> None:
        self._pin, self.damage = pin, Damage(dataset)
        self._sizes = np.array([view.size for view in views], dtype=np.int64)
        self._cut = _compiled_cut()
        self._dataset, self._images = dataset, images or EncodedImages(dataset)
        self._inspection = Inspection(dataset, self._images) if isinstance(self._images, EncodedImages) else None
        volume_N = dataset.heights.astype(np.int64) * dataset.widths * 3
        largest = int(volume_N.max(initial=0, where=self._images.mode == JPEG))
        if largest * threads > free_memory(torch.device("cpu")):
            raise ValueError(
                f"{dataset.path} has an image that takes {largest / 2**30:.1f} GiB decoded, which does not fit into "
                f"memory {threads} times, for as many threads; give fewer, or convert with --max-size"
            )
        self._count = threads
        self._scratch: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()  # a decode buffer for each thread
        for _ in range(threads):
            self._scratch.put(np.empty(largest, dtype=np.uint8))
        self._threads = decoding_threads(threads)
        self._slices: list[Future[None]] = []  # of batches under way

    def start(self, plan: BatchPlan) -> Callable[[], list[Tensor]]:
        """Give a batch to the threads and return a function that waits for it.

        That function returns one tensor [S, 3, size, size] uint8 for each view, channels-last in memory. Views of the
        same size are adjacent in one block of memory, which the caller owns. It raises DecodeError where every image
        is damaged.
        """
        source_S, samples = plan.source_S, len(plan.source_S)
        output, offset_V = self._allocate(samples)
        pixels, bad_S = output.numpy(), np.zeros(samples, dtype=np.bool_)
        address_S, held = self._images.addresses(source_S)
        mode_S, size_S = self._images.mode[source_S], self._dataset.table.size[source_S]
        height_S, width_S = self._dataset.heights[source_S], self._dataset.widths[source_S]

        def work(start: int, stop: int) -> None:
            if self._inspection is not None:
                bad_S[start:stop] = self._inspection.damaged(source_S[start:stop])
            scratch = self._scratch.get()
            try:
                self._cut(
                    address_S,
                    mode_S,
                    size_S,
                    height_S,
                    width_S,
                    plan.crop_VS4,
                    plan.flip_VS,
                    self._sizes,
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

        def finish() -> list[Tensor]:
            nonlocal held
            for running in slices:
                running.result()
            held = None
            self.damage.add(bad_S, source_S)
            return [
                output[first : first + samples * size * size * 3].view(samples, size, size, 3).permute(0, 3, 1, 2)
                for first, size in zip(offset_V.tolist(), self._sizes.tolist(), strict=True)
            ]

        return finish

    def close(self) -> None:
        """Wait for slices that are being decoded and release the images."""
        for running in self._slices:
            running.cancel()
        wait(self._slices)
        del self._images
        self._inspection = None

    def _allocate(self, samples: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Return one batch's output as flat memory, and the offset of each view in it: largest views first."""
        volume_V = samples * 3 * self._sizes**2
        order = np.argsort(-self._sizes, kind="stable")
        offset_V = np.empty_like(volume_V)
        offset_V[order] = np.concatenate([[0], np.cumsum(volume_V[order])[:-1]])
        return torch.empty(int(volume_V.sum()), dtype=torch.uint8, pin_memory=self._pin), offset_V


@cache
def _compiled_cut() -> Any:
    """Return the function that decodes and cuts.

    It is compiled once per process, because Numba cannot cache machine code that calls a library loaded by ctypes.
    """
    import numba

    imdecode, resize, _ = ffcv_kernels.load()

    @numba.njit(nogil=True)
    def cut(  # type: ignore[no-untyped-def]  # Numba infers the types
        address_S,
        mode_S,
        length_S,
        height_S,
        width_S,
        crop_VS4,
        flip_VS,
        size_V,
        offset_V,
        output,
        bad_S,
        scratch,
        start,
        stop,
    ):
        """Write the views of samples start to stop.

        Args:
            address_S, mode_S, length_S, height_S, width_S: address, mode, bytes and sides of each stored image.
            crop_VS4, flip_VS: boxes (top, left, height, width) and horizontal flips.
            size_V: side of each view, in pixels.
            offset_V: first byte of each view in the output.
            output: uint8, all views as rows of pixels, [S, size, size, 3] each.
            bad_S: which samples are damaged; samples that do not decode are added. Their views become grey.
            scratch: uint8, holds the largest decoded image.
        """
        for sample in range(start, stop):
            address, height, width = address_S[sample], np.int64(height_S[sample]), np.int64(width_S[sample])
            pixels = address
            if bad_S[sample]:
                pass
            elif mode_S[sample] == JPEG:
                pixels = scratch.ctypes.data
                failed = imdecode(
                    address, length_S[sample], height, width, pixels, height, width, 0, 0, 1, 1, False, False
                )
                bad_S[sample] = failed != 0
            elif mode_S[sample] != RAW:
                bad_S[sample] = True
            for view in range(len(size_V)):
                size = size_V[view]
                first = offset_V[view] + sample * size * size * 3
                target = output[first : first + size * size * 3]
                if bad_S[sample]:
                    target[:] = GREY
                    continue
                top, left = np.int64(crop_VS4[view, sample, 0]), np.int64(crop_VS4[view, sample, 1])
                bottom, right = top + crop_VS4[view, sample, 2], left + crop_VS4[view, sample, 3]
                resize(0, pixels, height, width, top, bottom, left, right, target.ctypes.data, size, size)
                if flip_VS[view, sample]:
                    rows = target.reshape(size, size, 3)
                    for row in range(size):
                        for column in range(size // 2):
                            for channel in range(3):
                                left_value = rows[row, column, channel]
                                rows[row, column, channel] = rows[row, size - 1 - column, channel]
                                rows[row, size - 1 - column, channel] = left_value

    return cut


def _make(dataset: Dataset, plan: Plan, device: torch.device, threads: int) -> FfcvExecutor:
    return FfcvExecutor(dataset, plan.views, threads, pin=device.type == "cuda")


SPEC = ExecutorSpec(name="ffcv", pixels="area", make=_make, package="ffcv")
