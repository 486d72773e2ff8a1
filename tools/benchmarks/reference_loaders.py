"""Several views of each image as FFCV's and DALI's documentation makes them: with one decode for each view.

Both loaders get the sizes, scales, ratios and flips of the views, use a random order, and return uint8 on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from pipelines import Dataset, View
from pipelines.executors.dali import load
from pipelines.formats.encoded import EncodedImages

Epochs = Callable[[int], Iterator[Any]]


def ffcv_epochs(
    dataset: Dataset, views: tuple[View, ...], batch_size: int, threads: int, device: torch.device
) -> Epochs:
    """Return the epochs of FFCV's Loader with one pipeline for each view.

    Raises:
        ModuleNotFoundError: FFCV is not installed.
    """
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.pipeline_spec import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, ToDevice, ToTensor, ToTorchImage

    pipelines: dict[str, Any] = {"label": None, "image": None}
    for number, view in enumerate(views):
        assert view.scale is not None
        decoder = RandomResizedCropRGBImageDecoder((view.size, view.size), scale=view.scale, ratio=view.ratio)
        steps = [RandomHorizontalFlip(view.flip), ToTensor(), ToDevice(device, non_blocking=True), ToTorchImage()]
        pipelines[f"view{number}"] = PipelineSpec("image", decoder=decoder, transforms=steps)
    loader = Loader(
        str(dataset.path),
        batch_size,
        num_workers=threads,
        order=OrderOption.RANDOM,
        drop_last=True,
        os_cache=True,
        pipelines=pipelines,
    )
    return lambda number: iter(loader)


def dali_epochs(
    dataset: Dataset, views: tuple[View, ...], batch_size: int, threads: int, device: torch.device
) -> Epochs:
    """Return the epochs of a DALI pipeline: `image_random_crop`, resize and flip for each view, from bytes in memory.

    Raises:
        ModuleNotFoundError: DALI is not installed.
    """
    dali = load()
    fn, on_gpu = dali.fn, device.type == "cuda"
    images, order = EncodedImages(dataset), np.random.default_rng(0)

    def source() -> list[Any]:
        return [images.image_file(number) for number in order.integers(0, dataset.number, batch_size).tolist()]

    graph = dali.Pipeline(
        batch_size=batch_size, num_threads=threads, device_id=(device.index or 0) if on_gpu else None, seed=0
    )
    with graph:
        encoded = fn.external_source(source=source)
        outputs = []
        for view in views:
            assert view.scale is not None
            crop = fn.decoders.image_random_crop(
                encoded,
                device="mixed" if on_gpu else "cpu",
                random_area=list(view.scale),
                random_aspect_ratio=list(view.ratio),
                use_fast_idct=True,
            )
            resized = fn.resize(crop, size=(view.size, view.size), antialias=True)
            outputs.append(fn.flip(resized, horizontal=fn.random.coin_flip(probability=view.flip)))
        graph.set_outputs(*outputs)
    graph.build()

    def epoch(number: int) -> Iterator[Any]:
        for _ in range(dataset.number // batch_size):
            yield [torch.from_dlpack(output.as_tensor()) for output in graph.run()]  # type: ignore[attr-defined]  # torch's stub lacks it

    return epoch
