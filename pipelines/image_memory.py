"""Where the images of a data set lie in this process's address space, encoded or decoded: what compiled code reads.

A mapped file, several mapped files and a block of decoded pixels look the same from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.beton_format import RAW
from pipelines.dataset import Dataset


@dataclass(frozen=True)
class ImageMemory:
    """N images.

    Attributes:
        address_N: int64, of each image's first byte.
        size_N: int64, bytes.
        raw_N: bool; height x width x 3 bytes of RGB, else a JPEG.
        height_N, width_N: int32, pixels.
        owner: what holds the memory.
    """

    address_N: NDArray[np.int64]
    size_N: NDArray[np.int64]
    raw_N: NDArray[np.bool_]
    height_N: NDArray[np.int32]
    width_N: NDArray[np.int32]
    owner: Any


def mapped(dataset: Dataset) -> ImageMemory:
    """The images of a .beton, in its mapped file."""
    table, data = dataset.table, np.memmap(dataset.path, dtype=np.uint8, mode="r")
    address_N = data.ctypes.data + table.offset
    return ImageMemory(address_N, table.size, table.mode == RAW, table.height, table.width, data)
