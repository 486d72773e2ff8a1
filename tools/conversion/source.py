"""What is to be converted: the images of each split, with one list of classes for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.decoding.value_range import ValueRange
from tools.conversion.byte_locations import Item

TRAIN = ""  # the training split goes to OUT itself; another split's key is the suffix of its file


@dataclass
class Source:
    """A recognised source.

    Attributes:
        name: for the card.
        kind: its layout, for the summary.
        classes: names in the order of the labels.
        splits: suffix -> images in index order; TRAIN is among them.
        bad: (name, reason) of files that cannot be converted, known without decoding.
        ignored: files that are no images and need not be.
        notes: lines for the user.
        scale: the values of the original files that are black and white in it, if it is a converted data set that was
            made with a range; else None.
        card: of the converted data set that this is, whose images are taken over as they are; else None.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0
    notes: list[str] = field(default_factory=list)
    scale: ValueRange | None = None
    card: dict[str, Any] | None = None


def byte_order(name: str) -> bytes:
    """Sort key of names: their bytes, so that the order does not depend on a locale."""
    return name.encode("utf-8", "surrogateescape")
