"""FFCV's own writer on the same JPEGs, as its documentation writes a folder of images."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

from PIL import Image


class Files:
    """A dataset as torchvision's ImageFolder is one; it remembers when the first image was asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.started = multiprocessing.Value("d", 0.0, lock=False)  # both processes begin at about the same time

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        if self.started.value == 0:
            self.started.value = time.perf_counter()
        with Image.open(self.paths[number]) as image:
            return image.convert("RGB"), 0


def seconds(paths: list[Path], out: Path, max_size: int, quality: int, workers: int) -> float:
    """Write the images, and return how long it took from the first image on.

    Raises:
        ModuleNotFoundError: FFCV is not installed.
    """
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    field = RGBImageField(write_mode="jpg", max_resolution=max_size, jpeg_quality=quality)
    files = Files(paths)
    writer = DatasetWriter(str(out), {"image": field, "label": IntField()}, num_workers=workers)
    writer.from_indexed_dataset(files)
    ended = time.perf_counter()
    return ended - float(files.started.value)
