"""Where the images of a data set lie: one table for every format, read without touching an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

JPEG, RAW = 0, 1
PIXEL_BOUND = 1 << 30  # of one image in any file that is opened: 3 GiB decoded


@dataclass(frozen=True)
class ImageTable:
    """The files of a data set, and the place of every image in them. Arrays have N entries, in index order.

    Attributes:
        files: what holds the images: the one .beton, or every shard.
        lengths: bytes of each file.
        file: int32, which of the files holds the image.
        mode: uint8, `JPEG` or `RAW` (height x width x 3 bytes).
        height, width: int32, pixels.
        offset, size: int64, bytes, of the image's data in its file.
        label: int64; -1 where there is none.
        digest: 16 bytes of each image as it was converted; None where the format keeps none, or they are not to count.
    """

    files: tuple[Path, ...]
    lengths: tuple[int, ...]
    file: NDArray[np.int32]
    mode: NDArray[np.uint8]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int64]
    digest: NDArray[np.void] | None = None

    def __len__(self) -> int:
        return len(self.mode)


def ppm_header(height: int, width: int) -> bytes:
    """What makes an image file, which every decoder reads, of raw pixels when it stands before them."""
    return b"P6 %d %d 255\n" % (width, height)


def refuse(wrong: NDArray[np.bool_], what: str) -> None:
    """Raises a ValueError that names the first sample which is wrong."""
    if wrong.any():
        raise ValueError(f"is damaged or edited: sample {int(np.argmax(wrong))} {what}")


def check_pixels(
    mode: NDArray[np.uint8], height: NDArray[np.int32], width: NDArray[np.int32], size: NDArray[np.uint64]
) -> None:
    """Every number that a decoder would trust and that does not depend on the file."""
    refuse(mode > RAW, "is neither JPEG nor raw")
    refuse((height < 1) | (width < 1), "has no pixels")
    refuse(height.astype(np.int64) * width > PIXEL_BOUND, f"has more than {PIXEL_BOUND:,} pixels")
    raw_size = height.astype(np.uint64) * width.astype(np.uint64) * np.uint64(3)
    refuse((mode == RAW) & (size != raw_size), "is raw but its size is not height x width x 3")
