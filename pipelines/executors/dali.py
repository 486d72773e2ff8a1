"""The DALI executor: NVIDIA DALI decodes, from any on-disk format, and the other executors' filters cut the views.

DALI's own readers, random numbers and resizes are not used. It gets the encoded bytes of the planned samples and
decodes each once, on a GPU by nvJPEG ("mixed"), else on the CPU. The decoded images are copied into one block of
memory, from which every view is cut: on a GPU by the augmentation's Triton kernels, or by `device_cutter.py` where
Triton is missing, and on a CPU by `host_cutter.py`.
DALI's own resize reads beyond the border of a crop; with it, single pixels were up to 45 levels from Pillow's.

A damaged image makes DALI fail for all of the batch. Then the images of the batch are decoded one by one, damaged ones
are replaced by grey ones (`damage.py`), and the graph is built again and given the batches under way.

Memory: on a GPU the decoder's buffers are allocated at the start, for the largest image of the data set. Decoded images
of `DEPTH` batches are held, and once more those of the batch that is being cut.
S = samples of a batch (anchors and partners), P = pixels of its images.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors import ffcv
from pipelines.executors.damage import GREY, Damage
from pipelines.executors.device_cutter import cut_views
from pipelines.executors.executor import Decoded, ExecutorSpec, Images
from pipelines.executors.host_cutter import HostCutter, Located
from pipelines.formats.dataset import Dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import RAW, ppm_header
from pipelines.formats.inspection import Inspection
from pipelines.formats.shard_format import SHARDS
from pipelines.plan.plan import BatchPlan, Plan
from pipelines.plan.views import RESIZE, View
from pipelines.triton_support import has_triton

INSTALL = "tools/setup.sh dali"
DEPTH = 2  # batches under way
_HARDWARE_SHARE = 0.65  # of a batch, decoded by the hardware JPEG decoder of GPUs that have one; DALI's own default


class _Batch:
    """A batch under way: its plan, and in the end its images or an error."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.images: Images | None = None
        self.error: Exception | None = None


class DaliExecutor:
    """Cuts the views of batches with DALI.

    Args:
        dataset: an opened data set of any format.
        views: their sizes and filters are used; boxes and flips come with each batch.
        threads: CPU threads, for decoding and, without a GPU, for cutting.
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
        self._views = views
        self._threads, self._device, self._largest = threads, device, largest
        self._damaged: set[int] = set()  # numbers of images that do not decode
        self._hardware_share = _HARDWARE_SHARE
        self._under_way: deque[_Batch] = deque()
        self._lock = Lock()
        on_host = device.type == "cpu" and ffcv.SPEC.installed()
        self._cutter = HostCutter(views, threads) if on_host else None
        self._graph = self._build()

    def start(self, plan: BatchPlan) -> Callable[[], Images]:
        """Give a batch to DALI and return a function that waits for it.

        That function returns views or decoded images on the device, in the order of the current stream there; the
        caller owns them. It raises DecodeError where every image is damaged.
        """
        batch = _Batch(plan)
        with self._lock:
            if len(self._under_way) == DEPTH:
                self._take_oldest()  # it belongs to an epoch that was abandoned, or to one that runs at the same time
            self._damaged.update(plan.source_S[self._inspection.damaged(plan.source_S)].tolist())
            self._under_way.append(batch)
            self._feed(plan)

        def finish() -> Images:
            with self._lock:
                while batch.images is None and batch.error is None:
                    self._take_oldest()
            if batch.error is not None:
                raise batch.error
            assert batch.images is not None
            return batch.images

        return finish

    def close(self) -> None:
        """End DALI's threads and release the images."""
        with self._lock:
            self._under_way.clear()
            self._graph = None
            if self._cutter is not None:
                self._cutter.close()
            self._images.close()

    def _take_oldest(self) -> None:
        """Wait for the batch that was started first, and store its images or its error in it."""
        batch = self._under_way[0]
        source_S = batch.plan.source_S
        try:
            try:
                outputs = self._outputs()
            except RuntimeError as error:  # DALI raises no narrower type
                self._recover(source_S, error)
                outputs = self._outputs()
            self.damage.add(np.isin(source_S, list(self._damaged)), source_S)
            batch.images = self._cut(self._pixels(outputs[0], source_S), batch.plan)
        except Exception as error:
            batch.error = error
        self._under_way.popleft()

    def _pixels(self, images: Any, source_S: NDArray[np.int64]) -> Tensor:
        """Return the pixels of decoded images, uint8 [P, 3], one image after the other."""
        height_S, width_S = self._dataset.heights[source_S].tolist(), self._dataset.widths[source_S].tolist()
        sides = list(zip(height_S, width_S, strict=True))
        if [tuple(shape[:2]) for shape in images.shape()] != sides:
            raise RuntimeError("DALI decoded an image to other sides than the data set's")
        volume = sum(height * width for height, width in sides)
        pixels_P3 = torch.empty((volume, 3), dtype=torch.uint8, device=self._device)
        target = ctypes.c_void_p(pixels_P3.data_ptr())
        if self._device.type == "cuda":
            stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
            images.copy_to_external(target, stream, non_blocking=True, use_copy_kernel=True)
        else:
            images.copy_to_external(target)
        return pixels_P3

    def _cut(self, pixels_P3: Tensor, plan: BatchPlan) -> Images:
        """Return the views of a batch whose decoded images lie one after the other; for Triton, the images."""
        height_S, width_S = self._dataset.heights[plan.source_S], self._dataset.widths[plan.source_S]
        volume_S = height_S.astype(np.int64) * width_S
        first_S = volume_S.cumsum() - volume_S
        if self._cutter is None:
            decoded = Decoded(pixels_P3, first_S, width_S)
            return decoded if has_triton(self._device) else cut_views(decoded, plan, self._views)
        modes_S = np.full(len(volume_S), RAW, dtype=np.uint8)
        address_S = pixels_P3.data_ptr() + 3 * first_S
        images = Located(address_S, modes_S, volume_S, height_S, width_S, pixels_P3)
        return self._cutter.start(images, plan)()[0]

    def _outputs(self) -> Any:
        """Return the outputs of DALI's oldest run, in the order of the current stream.

        They are released before they are copied, which is right in DALI's default model of execution alone: there the
        memory of an output is used again only in the order of the stream that has got it.
        """
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        outputs = self._graph.share_outputs(cuda_stream=stream)
        self._graph.release_outputs()
        return outputs

    def _feed(self, plan: BatchPlan) -> None:
        """Give the images of a batch to the graph and start a run."""
        self._graph.feed_input("encoded", [self._file(number) for number in plan.source_S.tolist()])
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
        """Build the graph of the decoder; with `alone` without the GPU's hardware one, for one image at a time."""
        dali = load()
        on_gpu = self._device.type == "cuda"
        heights, widths = self._dataset.heights, self._dataset.widths
        # Conversion has applied the orientation already; FFCV asks libjpeg-turbo for the fast transform, too.
        decoder: dict[str, Any] = {"output_type": dali.types.RGB, "adjust_orientation": False, "use_fast_idct": True}
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
            graph.set_outputs(dali.fn.decoders.image(dali.fn.external_source(name="encoded"), **decoder))
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
    filters=RESIZE,
    make=_make,
    package="nvidia.dali",
    gpu_formats=frozenset({SHARDS.name}),
    slow_start=True,
)
