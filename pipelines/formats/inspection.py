"""Checks an image when a process reads it for the first time, before a decoder gets it.

- The sides in its JPEG header must be those of the table. A decoder trusts the header: with other sides it fills only a
  part of its output, and the rest is whatever the memory held before.
- Its bytes must be those that were converted, where the data set stores a digest of each image (shards do).

An image that fails is treated as damaged (`executors/damage.py`). Each image is checked once, so later epochs pay
nothing. One compiled function reads the headers of all images of a file; each digest is one call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.dataset import Dataset
from pipelines.formats.digests import image_digest
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import JPEG


def jpeg_sides(data: memoryview) -> tuple[int, int] | None:
    """Return height and width from a JPEG's header, in pixels; None where there is no such header."""
    from pipelines.formats.jpeg_header import NONE, sides_from  # here, because importing Numba is slow

    found: tuple[int, int] = sides_from(np.frombuffer(data, dtype=np.uint8), 0, len(data))
    return None if found == NONE else found


class Inspection:
    """Checks each image of a data set once; safe to use from several threads."""

    def __init__(self, dataset: Dataset, images: EncodedImages) -> None:
        self._table, self._images = dataset.table, images
        self._seen_N = np.zeros(dataset.number, dtype=np.bool_)
        self._bad_N = np.zeros(dataset.number, dtype=np.bool_)

    def damaged(self, numbers_S: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each image number [S] whether it is unreadable or not the image that was converted: [S]."""
        new_S = numbers_S[~self._seen_N[numbers_S]]
        if len(new_S):
            self._inspect(new_S)
        bad_S: NDArray[np.bool_] = self._bad_N[numbers_S]
        return bad_S

    def _inspect(self, numbers_S: NDArray[np.int64]) -> None:
        from pipelines.formats.jpeg_header import mark_other_sides

        table, digest_N = self._table, self._table.digest
        for file in np.unique(table.file[numbers_S]):
            own_S = numbers_S[table.file[numbers_S] == file]
            bad_S = np.zeros(len(own_S), dtype=np.bool_)
            data, jpeg_S = self._images.file(int(file)), table.mode[own_S] == JPEG
            start_S, size_S = table.offset[own_S].astype(np.int64), table.size[own_S].astype(np.int64)
            mark_other_sides(data, start_S, size_S, jpeg_S, table.height[own_S], table.width[own_S], bad_S)
            if digest_N is not None:
                same = [image_digest(self._images[number].data) == digest_N[number].tobytes() for number in own_S]
                bad_S |= ~np.array(same, dtype=np.bool_)
            self._bad_N[own_S] = bad_S
        self._seen_N[numbers_S] = True
