"""The table of a data set's images: where each one lies in the files. It is the same for every on-disk format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

JPEG, RAW = 0, 1
MAX_SIDE = 65535  # pixels; every format here stores a side in 16 bits
PIXEL_BOUND = 1 << 30  # pixels of one image in any data set that is opened: 3 GiB decoded


@dataclass(frozen=True)
class ImageTable:
    """The files of a data set and the byte range of every image. Arrays have N entries, in index order.

    Attributes:
        files: the files that hold the images: one .beton, or every shard.
        lengths: bytes of each file.
        file: int32, index into `files`.
        mode: uint8, `JPEG` or `RAW` (height x width x 3 bytes).
        height, width: int32, pixels.
        offset, size: int64, bytes; where the image's data starts in its file, and how long it is.
        label: int64; -1 where there is none.
        digest: 16 bytes of each image as it was converted; None where the format stores none, or where the caller
            wants changed images to be accepted.
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
    """Return the bytes that, put before raw RGB pixels, make a PPM file, which every decoder reads."""
    return b"P6 %d %d 255\n" % (width, height)


def refuse(wrong: NDArray[np.bool_], what: str) -> None:
    """Raise a ValueError that names the first sample for which `wrong` [N] holds; do nothing if there is none."""
    if wrong.any():
        raise ValueError(f"is damaged or edited: sample {int(np.argmax(wrong))} {what}")


def check_pixels(
    mode: NDArray[np.uint8], height: NDArray[np.int32], width: NDArray[np.int32], size: NDArray[np.uint64]
) -> None:
    """Check the columns of a table [N] that a decoder trusts and that do not depend on a file's length.

    Raises:
        ValueError: a sample is of an unknown kind, empty, too large, or has a size that does not fit its sides.
    """
    refuse(mode > RAW, "is neither JPEG nor raw")
    refuse((height < 1) | (width < 1), "has no pixels")
    refuse(height.astype(np.int64) * width > PIXEL_BOUND, f"has more than {PIXEL_BOUND:,} pixels")
    raw_size = height.astype(np.uint64) * width.astype(np.uint64) * np.uint64(3)
    refuse((mode == RAW) & (size != raw_size), "is raw but its size is not height x width x 3")
