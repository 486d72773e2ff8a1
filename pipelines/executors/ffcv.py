"""The FFCV executor: it decodes each JPEG once and cuts every view of the sample from that decode, as planned.

FFCV's own Loader decodes and compiles once per view, reuses its output buffers, and draws random numbers that no seed
fixes. Here its kernels are called from one compiled function (`cut_kernel.py`) that gets sample numbers, boxes and
flips. No global thread count is changed, and two loaders share nothing.

The function reads at memory addresses, so the images may lie in mapped files of any format, or decoded in memory
(`resident.py` on a CPU).

Memory: as in `host_cutter.py`. S = samples of a batch (anchors and partners).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors.damage import Damage
from pipelines.executors.executor import ExecutorSpec
from pipelines.executors.host_cutter import HostCutter, Located
from pipelines.formats.dataset import Dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import JPEG
from pipelines.formats.inspection import Inspection
from pipelines.memory import free_memory
from pipelines.plan.plan import BatchPlan, Plan
from pipelines.plan.views import RESIZE, View


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
    """Cuts the views of batches with FFCV's kernels and Pillow's filters, on the CPU.

    Args:
        dataset: an opened data set of any format.
        views: their sizes and filters are used; boxes and flips come with each batch.
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
        self.damage = Damage(dataset)
        self._dataset, self._images = dataset, images or EncodedImages(dataset)
        self._inspection = Inspection(dataset, self._images) if isinstance(self._images, EncodedImages) else None
        volume_N = dataset.heights.astype(np.int64) * dataset.widths * 3
        largest = int(volume_N.max(initial=0, where=self._images.mode == JPEG))
        if largest * threads > free_memory(torch.device("cpu")):
            raise ValueError(
                f"{dataset.path} has an image that takes {largest / 2**30:.1f} GiB decoded, which does not fit into "
                f"memory {threads} times, for as many threads; give fewer, or convert with --max-size"
            )
        self._cutter = HostCutter(views, threads, largest, pin)

    def start(self, plan: BatchPlan) -> Callable[[], list[Tensor]]:
        """Give a batch to the threads and return a function that waits for it.

        That function returns one tensor [S, 3, size, size] uint8 for each view, channels-last in memory, which the
        caller owns. It raises DecodeError where every image is damaged.
        """
        source_S, inspection = plan.source_S, self._inspection
        address_S, held = self._images.addresses(source_S)
        images = Located(
            address_S,
            self._images.mode[source_S],
            self._dataset.table.size[source_S],
            self._dataset.heights[source_S],
            self._dataset.widths[source_S],
            held,
        )
        damaged = None if inspection is None else lambda rows: inspection.damaged(source_S[rows])
        wait = self._cutter.start(images, plan, damaged)

        def finish() -> list[Tensor]:
            views, bad_S = wait()
            self.damage.add(bad_S, source_S)
            return views

        return finish

    def close(self) -> None:
        """Wait for slices that are being decoded and release the images."""
        self._cutter.close()
        del self._images
        self._inspection = None


def _make(dataset: Dataset, plan: Plan, device: torch.device, threads: int) -> FfcvExecutor:
    return FfcvExecutor(dataset, plan.views, threads, pin=device.type == "cuda")


SPEC = ExecutorSpec(name="ffcv", filters=RESIZE, make=_make, package="ffcv")
