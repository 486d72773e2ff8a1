"""What is looked at when an image is read for the first time in a process, before a decoder gets it.

- The sides in its JPEG header are those of the table. A decoder takes the header's word: with other sides it fills a
  part of the target only, and the rest is what the memory held before.
- Its bytes are those that were converted, where the data set keeps a digest of each image (shards do).

An image that fails is damaged (`damage.py`). Each is looked at once, so later epochs pay nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset
from pipelines.digests import image_digest
from pipelines.encoded import EncodedImages
from pipelines.image_table import JPEG

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that begin with the picture's sides
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_PIXELS_BEGIN = (0xD9, 0xDA)


def jpeg_sides(data: memoryview) -> tuple[int, int] | None:
    """Height and width that a JPEG's header states; None where it states none."""
    at, end = 2, len(data) - 8
    if end < at or data[0] != 0xFF or data[1] != 0xD8:
        return None
    while at < end:
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker in _FRAMES:
            return data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
        if marker in _PIXELS_BEGIN:
            return None
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE or marker == 0:
            at += 2
        else:
            at += 2 + max(2, data[at + 2] << 8 | data[at + 3])
    return None


class Inspection:
    """Looks at each image of a data set once; threads may ask side by side."""

    def __init__(self, dataset: Dataset, images: EncodedImages) -> None:
        self._table, self._images = dataset.table, images
        self._seen_N = np.zeros(dataset.number, dtype=np.bool_)
        self._bad_N = np.zeros(dataset.number, dtype=np.bool_)

    def damaged(self, numbers_S: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[S] whether each of these images is none, or not the one that was converted."""
        for number in numbers_S[~self._seen_N[numbers_S]].tolist():
            self._bad_N[number] = not self._is_good(number)
            self._seen_N[number] = True
        bad_S: NDArray[np.bool_] = self._bad_N[numbers_S]
        return bad_S

    def _is_good(self, number: int) -> bool:
        table, data = self._table, self._images[number]
        if table.mode[number] == JPEG and jpeg_sides(data.data) != (table.height[number], table.width[number]):
            return False
        return table.digest is None or image_digest(data.data) == table.digest[number].tobytes()
