"""The resident executor: it decodes the data set once into uint8 memory on the device and cuts every view from there.

Images of any sizes lie one after the other without padding. All loaders of one data set and device in this process
share them, and closing the last of these loaders frees them.

    CPU     the FFCV executor's compiled function cuts the views: the pixels equal its own bit for bit, without the cost
            of decoding. Where FFCV is missing, Pillow decodes and `device_cutter.py` cuts.
    CUDA    the augmentation cuts, by Triton; where that is missing, `device_cutter.py` does

Memory: height x width x 3 bytes an image; with `device_cutter.py` its temporaries, too.
N = images, P = pixels of all images, S = samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.executors import ffcv
from pipelines.executors.damage import GREY, Damage
from pipelines.executors.decode import Decoder, decode_all, decoder
from pipelines.executors.device_cutter import cut_views
from pipelines.executors.executor import Decoded, Executor, ExecutorSpec, Images
from pipelines.formats.dataset import Dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import RAW
from pipelines.formats.inspection import Inspection
from pipelines.memory import free_memory
from pipelines.plan.plan import BatchPlan, Plan
from pipelines.plan.views import RESIZE, View
from pipelines.triton_support import has_triton

LIMIT = 0.8  # of the free memory: the largest decoded set that is accepted
DAMAGED = 255  # a mode besides JPEG and RAW: the image could not be decoded
_CHUNK = 64 * 2**20  # bytes that are decoded on the host at a time on their way to a GPU
_SLICE = 256  # images that a thread decodes in one task


class DecodedImages:
    """The decoded pixels of a data set on a device.

    Attributes:
        pixels_P3: uint8 [P, 3], the pixels of all images, row by row.
        first_N: int64 [N], each image's first pixel.
        mode: uint8 [N], `RAW` or `DAMAGED`.
    """

    def __init__(self, dataset: Dataset, device: torch.device, threads: int) -> None:
        volume_N = dataset.heights.astype(np.int64) * dataset.widths
        last_N = volume_N.cumsum()
        self.first_N = last_N - volume_N
        self.mode = np.full(dataset.number, RAW, dtype=np.uint8)
        self.pixels_P3 = torch.empty((int(last_N[-1]), 3), dtype=torch.uint8, device=device)
        decode, on_gpu = decoder(), device.type == "cuda"
        chunk = _CHUNK if on_gpu else self.pixels_P3.nbytes
        starts = np.unique(np.searchsorted(last_N * 3, np.arange(0, int(last_N[-1]) * 3, chunk)))
        with EncodedImages(dataset) as images:
            inspection = Inspection(dataset, images)
            for start, stop in zip(starts, [*starts[1:], dataset.number], strict=True):
                base, end = int(self.first_N[start]), int(last_N[stop - 1])
                target_P3 = self.pixels_P3[base:end]
                host_P3 = torch.empty_like(target_P3, device="cpu", pin_memory=True) if on_gpu else target_P3
                pixels_P3 = host_P3.numpy()

                def work(
                    first: int, stop: int = stop, base: int = base, pixels_P3: NDArray[np.uint8] = pixels_P3
                ) -> None:
                    numbers = np.arange(first, min(first + _SLICE, stop))
                    for number, damaged in zip(numbers.tolist(), inspection.damaged(numbers).tolist(), strict=True):
                        target = pixels_P3[self.first_N[number] - base : last_N[number] - base]
                        shape = (int(dataset.heights[number]), int(dataset.widths[number]), 3)
                        if damaged or not _decode(images, number, target.reshape(shape), decode):
                            target[:] = GREY
                            self.mode[number] = DAMAGED

                decode_all(work, range(start, stop, _SLICE), threads)
                if on_gpu:
                    target_P3.copy_(host_P3)  # blocks until it has arrived, so every stream may read it

    def addresses(self, numbers_S: NDArray[np.int64]) -> tuple[NDArray[np.int64], object]:
        """Return the addresses [S] of the images' first bytes, and an object to hold while they are read."""
        return self.pixels_P3.data_ptr() + 3 * self.first_N[numbers_S], self.pixels_P3


def _decode(images: EncodedImages, number: int, target_HW3: NDArray[np.uint8], decode: Decoder) -> bool:
    if images.mode[number] == RAW:
        target_HW3[:] = images[number].reshape(target_HW3.shape)
        return True
    return decode(images[number], target_HW3)


_shared: WeakValueDictionary[tuple[Path, str, torch.device], DecodedImages] = WeakValueDictionary()
_lock = Lock()


def _key(dataset: Dataset, device: torch.device) -> tuple[Path, str, torch.device]:
    # The path belongs to it: by the checksum alone, a data set with an edited card could read another one's pixels.
    return dataset.path.resolve(), dataset.checksum, device


def is_decoded(dataset: Dataset, device: torch.device) -> bool:
    """Whether an open loader of this process holds the data set's pixels on the device."""
    return _key(dataset, device) in _shared


def decoded_bytes(dataset: Dataset) -> int:
    """Return the memory that the decoded data set takes, in bytes."""
    return 3 * int((dataset.heights.astype(np.int64) * dataset.widths).sum())


def forecast(dataset: Dataset, device: torch.device) -> tuple[float, str]:
    """Return the share of the device's free memory that the decoded data set would take, and a line that says so."""
    size, free = decoded_bytes(dataset), free_memory(device)
    share = size / max(free, 1)
    line = f"{dataset.number:,} images, {size / 2**30:.2f} GiB decoded"
    return share, f"{line}, {share:.1%} of the {free / 2**30:.1f} GiB that are free on {device}"


def decoded_images(dataset: Dataset, device: torch.device, threads: int) -> DecodedImages:
    """Return the pixels of a data set; they are decoded if no open loader holds them.

    Raises:
        ValueError: they would take more than `LIMIT` of the device's free memory.
    """
    with _lock:
        found = _shared.get(_key(dataset, device))
        if found is None:
            share, line = forecast(dataset, device)
            if share > LIMIT:
                raise ValueError(
                    f"{dataset.path} does not fit into memory ({line}; at most {LIMIT:.0%} is taken); "
                    "take --loader auto, or convert with a smaller --max-size"
                )
            found = _shared[_key(dataset, device)] = DecodedImages(dataset, device, threads)
        return found


class ResidentExecutor:
    """Hands out decoded images on their device; their views are cut there by Triton if possible, else by torch.

    Args:
        dataset: an opened data set.
        views: their sizes and filters are used; boxes and flips come with each batch.
        images: the data set's pixels.
    """

    def __init__(self, dataset: Dataset, views: tuple[View, ...], images: DecodedImages) -> None:
        self.damage, self._images = Damage(dataset), images
        self._widths, self._views = dataset.widths, views

    def start(self, plan: BatchPlan) -> Callable[[], Images]:
        """Return a function that returns the images of a batch; on CUDA, work is queued on the current stream.

        Raises:
            DecodeError: every image is damaged.
        """
        images, source_S = self._images, plan.source_S
        self.damage.add(images.mode[source_S] == DAMAGED, source_S)
        if images.pixels_P3.is_cuda:
            images.pixels_P3.record_stream(torch.cuda.current_stream(images.pixels_P3.device))
        decoded = Decoded(images.pixels_P3, images.first_N[source_S], self._widths[source_S])
        made = decoded if has_triton(images.pixels_P3.device) else cut_views(decoded, plan, self._views)
        return lambda: made

    def close(self) -> None:
        """Release the pixels; they are freed if no other loader holds them."""
        del self._images


def _make(dataset: Dataset, plan: Plan, device: torch.device, threads: int) -> Executor:
    images = decoded_images(dataset, device, threads)
    if device.type == "cpu" and ffcv.SPEC.installed():
        return ffcv.FfcvExecutor(dataset, plan.views, threads, images=images)
    return ResidentExecutor(dataset, plan.views, images)


SPEC = ExecutorSpec(name="resident", filters=RESIZE, make=_make)
