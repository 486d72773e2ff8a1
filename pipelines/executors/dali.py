"""The DALI executor: NVIDIA DALI decodes and cuts, as the plan says, from any on-disk format.

DALI's own readers and random numbers are not used: it gets the encoded bytes of the planned samples, and their boxes.
One graph decodes each sample once (on a GPU by nvJPEG, "mixed"; else on the CPU) and cuts every view of every size by a
region-of-interest resize with a triangle filter; a region whose end lies before its start gives a mirrored view.
Outputs go to torch by DLPack. In DALI's default execution model each batch has buffers of its own, which live as long
as the tensors, so nothing is copied and nothing is overwritten.

A damaged image makes DALI fail for all of the batch. Then the images of the batch are decoded one by one, damaged ones
are replaced by grey ones (`damage.py`), and the graph is built again and given the batches under way.

Memory: on a GPU the decoder's buffers are allocated at the start, for the largest image of the data set. Decoded images
and views of `DEPTH` batches are held.
S = samples of a batch (anchors and partners).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pipelines.executors.damage import GREY, Damage
from pipelines.executors.executor import ExecutorSpec
from pipelines.formats.dataset import Dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import ppm_header
from pipelines.formats.inspection import Inspection
from pipelines.formats.shard_format import SHARDS
from pipelines.plan.plan import BatchPlan, Plan
from pipelines.plan.views import View

INSTALL = "tools/setup.sh dali"
DEPTH = 2  # batches under way
_HARDWARE_SHARE = 0.65  # of a batch, decoded by the hardware JPEG decoder of GPUs that have one; DALI's own default


class _Batch:
    """A batch under way: its plan, and in the end its views or an error."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.views: list[Tensor] | None = None
        self.error: Exception | None = None


class DaliExecutor:
    """Cuts the views of batches with DALI.

    Args:
        dataset: an opened data set of any format.
        views: their sizes are used; boxes and flips come with each batch.
        threads: DALI's CPU threads, for decoding and, without a GPU, for everything else.
        device: where the views are made.
        largest: number of samples of the largest batch.

    Raises:
        ModuleNotFoundError: DALI is not installed.
    """

    def __init__(
        self, dataset: Dataset, views: tuple[View, ...], threads: int, device: torch.device, largest: int
    ) -> None:
        load()
        self.damage = Damage(dataset)
        self._dataset, self._images = dataset, EncodedImages(dataset)
        self._inspection = Inspection(dataset, self._images)
        self._sizes = [view.size for view in views]
        self._threads, self._device, self._largest = threads, device, largest
        self._damaged: set[int] = set()  # numbers of images that do not decode
        self._hardware_share = _HARDWARE_SHARE
        self._under_way: deque[_Batch] = deque()
        self._lock = Lock()
        self._graph = self._build()

    def start(self, plan: BatchPlan) -> Callable[[], list[Tensor]]:
        """Give a batch to DALI and return a function that waits for it.

        That function returns one tensor [S, 3, size, size] uint8 for each view, channels-last in memory, on the device
        and in the order of the current stream there; the caller owns them. It raises DecodeError where every image is
        damaged.
        """
        batch = _Batch(plan)
        with self._lock:
            if len(self._under_way) == DEPTH:
                self._take_oldest()  # it belongs to an epoch that was abandoned, or to one that runs at the same time
            self._damaged.update(plan.source_S[self._inspection.damaged(plan.source_S)].tolist())
            self._under_way.append(batch)
            self._feed(plan)

        def finish() -> list[Tensor]:
            with self._lock:
                while batch.views is None and batch.error is None:
                    self._take_oldest()
            if batch.error is not None:
                raise batch.error
            assert batch.views is not None
            return batch.views

        return finish

    def close(self) -> None:
        """End DALI's threads and release the images."""
        with self._lock:
            self._under_way.clear()
            self._graph = None
            self._images.close()

    def _take_oldest(self) -> None:
        """Wait for the batch that was started first, and store its views or its error in it."""
        batch = self._under_way[0]
        source_S = batch.plan.source_S
        try:
            try:
                outputs = self._outputs()
            except RuntimeError as error:  # DALI raises no narrower type
                self._recover(source_S, error)
                outputs = self._outputs()
            self.damage.add(np.isin(source_S, list(self._damaged)), source_S)
            batch.views = [from_dlpack(output.as_tensor()).permute(0, 3, 1, 2) for output in outputs]
        except Exception as error:
            batch.error = error
        self._under_way.popleft()

    def _outputs(self) -> Any:
        """Return the outputs of DALI's oldest run, in the order of the current stream."""
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        outputs = self._graph.share_outputs(cuda_stream=stream)
        self._graph.release_outputs()
        return outputs

    def _feed(self, plan: BatchPlan) -> None:
        """Give the images and boxes of a batch to the graph and start a run."""
        top, left, height, width = np.moveaxis(plan.crop_VS4.astype(np.float32), 2, 0)
        right = np.where(plan.flip_VS, left, left + width)  # a region whose end lies before its start is mirrored
        left = np.where(plan.flip_VS, left + width, left)
        self._graph.feed_input("encoded", [self._file(number) for number in plan.source_S.tolist()])
        for view in range(len(self._sizes)):
            self._graph.feed_input(f"start{view}", np.stack([top[view], left[view]], axis=1))
            self._graph.feed_input(f"end{view}", np.stack([top[view] + height[view], right[view]], axis=1))
        self._graph.schedule_run()

    def _file(self, number: int) -> NDArray[np.uint8]:
        """Return an image as a file [bytes]; for a damaged one, a grey image of the same size."""
        if number not in self._damaged:
            return self._images.image_file(number)
        height, width = int(self._dataset.heights[number]), int(self._dataset.widths[number])
        header = np.frombuffer(ppm_header(height, width), dtype=np.uint8)
        return np.concatenate((header, np.full(height * width * 3, GREY, dtype=np.uint8)))

    def _recover(self, source_S: NDArray[np.int64], error: RuntimeError) -> None:
        """Find out why a run failed, build the graph again, and start the batches under way again.

        Raises:
            RuntimeError: DALI's own error, where neither an image nor the hardware decoder is the cause.
        """
        decode: Any = None
        damaged = set()
        for number in sorted({*source_S.tolist()} - self._damaged):
            decode = decode or self._build(alone=True)
            try:
                decode.feed_input("encoded", [self._images.image_file(number)])
                decode.schedule_run()
                shape = tuple(decode.share_outputs()[0].as_tensor().shape())[1:3]
                decode.release_outputs()
            except RuntimeError:
                shape, decode = None, None  # a graph that failed once cannot be used again
            if shape != (self._dataset.heights[number], self._dataset.widths[number]):
                damaged.add(number)
        if not damaged:
            if self._device.type != "cuda" or self._hardware_share == 0:
                raise error
            reason = str(error).strip().splitlines()[0]
            print(f"the GPU's hardware JPEG decoder failed and is not used from here on: {reason}", file=sys.stderr)
            self._hardware_share = 0
        self._damaged |= damaged
        self._graph = self._build()
        for batch in self._under_way:
            self._feed(batch.plan)

    def _build(self, alone: bool = False) -> Any:
        """Build the graph; with `alone` only its decoder, without the GPU's hardware one, for one image at a time."""
        dali = load()
        fn, types = dali.fn, dali.types
        on_gpu = self._device.type == "cuda"
        heights, widths = self._dataset.heights, self._dataset.widths
        # Conversion has applied the orientation already; FFCV asks libjpeg-turbo for the fast transform, too.
        decoder: dict[str, Any] = {"output_type": types.RGB, "adjust_orientation": False, "use_fast_idct": True}
        if on_gpu:
            largest = int((heights.astype(np.int64) * widths).max()) * 3
            decoder |= {
                "device": "mixed",
                "hw_decoder_load": 0 if alone else self._hardware_share,
                "jpeg_fancy_upsampling": True,  # as on a CPU
                "device_memory_padding": largest,
                "host_memory_padding": largest,
                "bytes_per_sample_hint": largest,
                "preallocate_height_hint": int(heights.max()),
                "preallocate_width_hint": int(widths.max()),
            }
        graph = dali.Pipeline(
            batch_size=1 if alone else self._largest,
            num_threads=1 if alone else self._threads,
            device_id=(self._device.index or 0) if on_gpu else None,
            prefetch_queue_depth=1,  # with more, the first run would wait for as many batches
        )
        with graph:
            pixels = fn.decoders.image(fn.external_source(name="encoded"), **decoder)
            views = [
                fn.resize(
                    pixels,
                    size=(size, size),
                    roi_start=fn.external_source(name=f"start{view}"),
                    roi_end=fn.external_source(name=f"end{view}"),
                    antialias=True,
                )
                for view, size in enumerate(self._sizes)
            ]
            graph.set_outputs(*([pixels] if alone else views))
        graph.build()
        return graph


def load() -> Any:
    """Import and return the package `nvidia.dali`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import nvidia.dali
        import nvidia.dali.fn
        import nvidia.dali.types
    except ImportError:
        raise ModuleNotFoundError(
            f"nvidia-dali is not installed, and the loader 'dali' decodes with it; install it with: {INSTALL}"
        ) from None
    return nvidia.dali


def _make(dataset: Dataset, plan: Plan, device: torch.device, threads: int) -> DaliExecutor:
    samples = -(-plan.batch_size // plan.world)
    return DaliExecutor(dataset, plan.views, threads, device, largest=2 * samples)  # anchors and partners


SPEC = ExecutorSpec(
    name="dali",
    pixels="dali",
    make=_make,
    package="nvidia.dali",
    gpu_formats=frozenset({SHARDS.name}),
    slow_start=True,
)
