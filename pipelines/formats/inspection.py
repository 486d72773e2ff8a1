"""What is looked at when an image is read for the first time in a process, before a decoder gets it.

- The sides in its JPEG header are those of the table. A decoder takes the header's word: with other sides it fills a
  part of the target only, and the rest is what the memory held before.
- Its bytes are those that were converted, where the data set keeps a digest of each image (shards do).

An image that fails is damaged (`damage.py`). Each is looked at once, so later epochs pay nothing. Headers are walked by
one compiled function for all images of a file; digests are one call each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.dataset import Dataset
from pipelines.formats.digests import image_digest
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import JPEG


def jpeg_sides(data: memoryview) -> tuple[int, int] | None:
    """Height and width that a JPEG's header states; None where it states none."""
    from pipelines.formats.jpeg_header import NONE, sides_from  # here, because Numba takes its time to be imported

    found: tuple[int, int] = sides_from(np.frombuffer(data, dtype=np.uint8), 0, len(data))
    return None if found == NONE else found


class Inspection:
    """Looks at each image of a data set once; threads may ask side by side."""

    def __init__(self, dataset: Dataset, images: EncodedImages) -> None:
        self._table, self._images = dataset.table, images
        self._seen_N = np.zeros(dataset.number, dtype=np.bool_)
        self._bad_N = np.zeros(dataset.number, dtype=np.bool_)

    def damaged(self, numbers_S: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[S] whether each of these images is none, or not the one that was converted."""
        new_S = numbers_S[~self._seen_N[numbers_S]]
        if len(new_S):
            self._look_at(new_S)
        bad_S: NDArray[np.bool_] = self._bad_N[numbers_S]
        return bad_S

    def _look_at(self, numbers_S: NDArray[np.int64]) -> None:
        from pipelines.formats.jpeg_header import compare_sides

        table, digest_N = self._table, self._table.digest
        for file in np.unique(table.file[numbers_S]):
            own_S = numbers_S[table.file[numbers_S] == file]
            bad_S = np.zeros(len(own_S), dtype=np.bool_)
            compare_sides(
                self._images.file(int(file)), table.offset[own_S].astype(np.int64), table.size[own_S].astype(np.int64),
                table.mode[own_S] == JPEG, table.height[own_S], table.width[own_S], bad_S,
            )  # fmt: skip
            if digest_N is not None:
                same = [image_digest(self._images[number].data) == digest_N[number].tobytes() for number in own_S]
                bad_S |= ~np.array(same, dtype=np.bool_)
            self._bad_N[own_S] = bad_S
        self._seen_N[numbers_S] = True
