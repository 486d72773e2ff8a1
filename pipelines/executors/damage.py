"""What every executor does with an image that cannot be decoded: a grey one replaces it, and it is counted.

The sample keeps its number, label and boxes, so the plan of the epoch does not change. The first damaged image is named
at once. `Loader.replaced` counts all of them, and the training loop writes the count into its metrics. A batch without
a single readable image stops the run, because then the file is lost and not an image.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.card import DatasetError
from pipelines.formats.dataset import Dataset

GREY = 128  # value of all three channels
_reported: set[Path] = set()  # the data sets for which this process has printed the message


class DecodeError(DatasetError):
    """No image of a batch can be decoded."""


class Damage:
    """The damaged images that an executor has met.

    Attributes:
        numbers: their indices in the data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.numbers: set[int] = set()
        self._path = dataset.path

    def add(self, bad_S: NDArray[np.bool_], source_S: NDArray[np.int64]) -> None:
        """Count the replaced samples of a batch.

        Args:
            bad_S: [S] whether each sample was replaced.
            source_S: [S] index of each sample in the data set.

        Raises:
            DecodeError: all samples were replaced.
        """
        numbers = source_S[bad_S].tolist()
        if not numbers:
            return
        if self._path not in _reported:
            _reported.add(self._path)
            print(
                f"{self._path}: image {numbers[0]} is damaged and cannot be decoded; a grey one replaces it, and "
                "further ones are only counted; convert the data set again",
                file=sys.stderr,
            )
        self.numbers.update(numbers)
        if bad_S.all():
            raise DecodeError(
                f"{self._path}: image {numbers[0]} is damaged and cannot be decoded, nor can any other of its batch of "
                f"{len(bad_S)}; convert the data set again"
            )
