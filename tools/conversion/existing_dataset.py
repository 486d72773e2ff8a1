"""A data set that was converted before as a source: its images are copied byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelines.formats.card import DatasetError, card_path
from pipelines.formats.conversion_mark import KEY
from pipelines.formats.dataset import image_names
from pipelines.formats.opening import open_dataset
from pipelines.formats.registry import format_of
from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Item, Kept
from tools.conversion.source import TRAIN, Source
from tools.conversion.tree import SourceError


def _complete(card: dict[str, Any]) -> bool:
    """Whether a card has the values that conversion prints; training needs none of them, so opening does not check."""
    settings = card.get("settings")
    if type(card.get("labelled")) is not int or not isinstance(settings, dict):
        return False
    stored, skipped = settings.get("stored"), settings.get("skipped")
    return (
        isinstance(stored, dict)
        and all(type(count) is int for count in stored.values())
        and isinstance(skipped, list)
        and all(isinstance(entry, list) and [*map(type, entry)] == [str, str] for entry in skipped)
    )


def converted(path: Path) -> Source | None:
    """Return the images of a data set in any on-disk format; None if the path is none.

    Raises:
        SourceError: it is a data set and cannot be used.
    """
    if format_of(path) is None:
        return None
    try:
        dataset = open_dataset(path)
    except DatasetError as error:
        raise SourceError(printable(str(error))) from None
    table = dataset.table
    names = image_names(dataset) or [f"{path.name}#{number}" for number in range(dataset.number)]
    files = [os.fspath(file) for file in table.files]
    columns = (table.file, table.offset, table.size, table.mode, table.height, table.width, table.label)
    items = [
        Item(name, label, Kept(ByteRange(files[file], offset, size), mode, height, width))
        for name, file, offset, size, mode, height, width, label in zip(
            names, *(column.tolist() for column in columns), strict=True
        )
    ]
    card = dataset.card
    if not _complete(card):
        raise SourceError(
            f"the card {printable(str(card_path(path)))} lacks what conversion writes; convert its own source"
        )
    layout = str(card.get("layout", dataset.format))
    classes, conversion = tuple(card["classes"]), dict(card.get(KEY, {}))
    scale = dataset.value_range
    return Source(card["source"], layout, classes, {TRAIN: items}, scale=scale, card=card, conversion=conversion)
