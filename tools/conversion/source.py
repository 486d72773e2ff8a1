"""What is to be converted: the images of each split, with one list of classes for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.decoding.value_range import ValueRange
from tools.conversion.byte_locations import ByteRange, GreyPlane, Item, Kept, Planes

TRAIN = ""  # the training split goes to OUT itself; another split's key is the suffix of its file


@dataclass(frozen=True)
class Request:
    """How the command line asks for a source to be read.

    Attributes:
        follow_links: whether links that lead out of a source folder are taken.
        folder: the folder inside the source to convert alone; "" for all.
        layout: a key of `folder_layout.LAYOUTS`.
        classes: "train", the other splits may only have its classes; or "union", the classes of all splits.
        labels: a file that lists names and labels of images, or None.
    """

    follow_links: bool = False
    folder: str = ""
    layout: str = "auto"
    classes: str = "train"
    labels: Path | None = None


@dataclass
class Source:
    """A recognised source.

    Attributes:
        name: for the card.
        kind: its layout, for the summary.
        classes: names in the order of the labels.
        splits: suffix -> images in index order; TRAIN is among them.
        bad: (name, reason) of files that cannot be converted, known without decoding.
        ignored: paths of files that are no images and need not be.
        root: the folder inside the source below which its splits and classes lie; "" for the source itself.
        notes: lines for the user that were not printed yet.
        warned: (name, what an image library said while the image was decoded).
        scale: the values of the original files that are black and white in it, if it is a converted data set that was
            made with a range; else None.
        card: of the converted data set that this is, whose images are taken over as they are; else None.
        conversion: what the card of a converted source says of its conversion, {} if nothing; None for other sources.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: Collection[str] = ()
    root: str = ""
    notes: list[str] = field(default_factory=list)
    warned: list[tuple[str, str]] = field(default_factory=list)
    scale: ValueRange | None = None
    card: dict[str, Any] | None = None
    conversion: dict[str, Any] | None = None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Split -> checksum of its list of images; the splits must not change afterwards."""
        return {split: fingerprint(items) for split, items in self.splits.items()}


def fingerprint(items: list[Item]) -> str:
    """Return a checksum of the images' names and labels and, in an archive, of their byte ranges."""
    digest = hashlib.blake2b(digest_size=16)
    for item in items:
        content = item.content.place if isinstance(item.content, Planes | GreyPlane | Kept) else item.content
        where = content[1:] if isinstance(content, ByteRange) else ()  # without the path
        digest.update(byte_order(f"{item.name}\0{item.label}\0{where}\n"))
    return digest.hexdigest()


def byte_order(name: str) -> bytes:
    """Sort key of names: their bytes, so that the order does not depend on a locale."""
    return name.encode("utf-8", "surrogateescape")
