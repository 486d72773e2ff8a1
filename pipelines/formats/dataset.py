"""A converted data set: one .beton, or a folder of shards, with the card that was written at conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.card import read_names
from pipelines.formats.image_table import ImageTable


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set without decoding it.

    Attributes:
        path: the .beton, or the folder of shards.
        format: "beton" or "shards".
        number: N, the images in it.
        classes: names, in the order of the labels, as they can be printed (`printable`); empty if unlabelled.
        heights, widths: [N] int32, pixels.
        labels: [N] int64, -1 = unlabelled.
        mean, std: of red, green and blue on the scale 0 to 1; every image counts the same whatever its size.
        checksum: hexadecimal; of the images' encoded bytes and labels in order, whatever files they lie in.
        name: the source that it was converted from, as it can be printed.
        table: where the images lie in the files.
        card: the whole card; its names are those of the source, byte for byte.
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


def image_names(dataset: Dataset) -> list[str]:
    """The images' names in the source, in index order; empty if the list was not kept with the images, or edited.

    They are those of the source, byte for byte (`printable` makes them printable), as lists of images name them.
    """
    names = read_names(dataset.path, dataset.card.get("names_checksum"))
    return names if len(names) == dataset.number else []
