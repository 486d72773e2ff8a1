"""A converted data set: what its card and its image table say. `opening.py` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.decoding.value_range import ValueRange
from pipelines.formats.card import card_range, read_names
from pipelines.formats.image_table import ImageTable


@dataclass(frozen=True)
class Dataset:
    """All that is known of a data set without decoding an image.

    Attributes:
        path: the file or folder, such as photos.beton.
        format: name of its on-disk format, a key of `registry.FORMATS`.
        number: N, the number of images.
        classes: names in the order of the labels, escaped for display (`printable`); empty if unlabelled.
        heights, widths: [N] int32, pixels.
        labels: [N] int64, -1 = unlabelled.
        mean, std: of red, green and blue, on the scale 0 to 1; every image has the same weight whatever its size. No
            deviation is below `channels.FLOOR`; the card has those that were measured.
        checksum: hexadecimal, of the images' encoded bytes and labels in order; the same for every format.
        name: the source that it was converted from, escaped for display.
        table: where the images lie in the files.
        card: the card as it was read; names in it are those of the source, byte for byte.
    """

    path: Path
    format: str
    number: int
    classes: tuple[str, ...]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    labels: NDArray[np.int64]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    checksum: str
    name: str
    table: ImageTable
    card: dict[str, Any]

    @property
    def value_range(self) -> ValueRange | None:
        """The values of the original files that are black and white here; None = all that their kind of pixels has."""
        return card_range(self.card)


def image_names(dataset: Dataset) -> list[str]:
    """Return the images' names in the source, in index order, byte for byte (`printable` escapes them for display).

    The list is empty if it was not kept with the images, or was edited.
    """
    names = read_names(dataset.path, dataset.card.get("names_checksum"))
    return names if len(names) == dataset.number else []
