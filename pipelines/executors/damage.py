"""What every executor does with an image that cannot be decoded: a grey one takes its place, and it is counted.

The sample keeps its number, label and boxes, so the plan of an epoch does not change. The first damaged image is named
at once; `Loader.replaced` counts them, and the loop writes the count into its metrics. A batch without a single
readable image stops the run: then the file is gone, not an image.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.card import DatasetError
from pipelines.formats.dataset import Dataset

GREY = 128  # of every colour
_told: set[Path] = set()  # the data sets whose damage this process has spoken of


class DecodeError(DatasetError):
    """No image of a batch can be decoded."""


class Damage:
    """The damaged images that an executor has met.

    Attributes:
        numbers: their numbers in the data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.numbers: set[int] = set()
        self._path = dataset.path

    def add(self, bad_S: NDArray[np.bool_], source_S: NDArray[np.int64]) -> None:
        """Counts the samples of a batch that were replaced: [S] whether each was, and its number.

        Raises:
            DecodeError: all of them were.
        """
        numbers = source_S[bad_S].tolist()
        if not numbers:
            return
        if self._path not in _told:
            _told.add(self._path)
            print(
                f"{self._path}: image {numbers[0]} is damaged and cannot be decoded; a grey one takes its place, and "
                "further ones are counted only; convert the data set again",
                file=sys.stderr,
            )
        self.numbers.update(numbers)
        if bad_S.all():
            raise DecodeError(
                f"{self._path}: image {numbers[0]} is damaged and cannot be decoded, nor can any other of its batch of "
                f"{len(bad_S)}; convert the data set again"
            )
