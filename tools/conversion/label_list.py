"""Labels from a file that the user names (`--labels FILE`), for images whose folders tell none."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from pipelines.formats.regular_file import content
from pipelines.printable import printable
from tools.conversion.file_kinds import is_image
from tools.conversion.label_table import read_table
from tools.conversion.source import byte_order
from tools.conversion.tree import SourceError

_LARGEST = 1 << 30  # bytes of a list


class LabelList:
    """The labels of some images, by their paths.

    A line names an image by its path, by the end of its path, by its file name, or by either without its ending.

    Args:
        path: the file.
        images: paths of the images that may be named.

    Attributes:
        labels: path of an image -> label.
        notes: lines for the user, about lines that name no image.

    Raises:
        SourceError: the file cannot be used, names no image, or names several images by one name.
    """

    def __init__(self, path: Path, images: Collection[str]) -> None:
        self.path = path
        self.labels: dict[str, str] = {}
        self.notes: list[str] = []
        index: dict[str, list[str]] = defaultdict(list)
        for image in images:
            for name in _names(image):
                index[name].append(image)
        rows = read_table(_text(path), path.name, lambda name: name in index)
        if all(not row.name for row in rows):
            self._in_order([row.label for row in rows], images)
            return
        unknown = []
        for row in rows:
            found = index.get(row.name) or index.get(_without_ending(row.name)) or self._by_end(row.name, index)
            if not found:
                unknown.append(row.name)
            elif len(found) > 1:
                raise SourceError(
                    f"{printable(row.name)} in {printable(path.name)} names {len(found)} images, such as "
                    f"{printable(found[0])} and {printable(found[1])}; write their paths in the source"
                )
            elif not row.label:
                raise SourceError(f"{printable(row.name)} has no label in {printable(path.name)}")
            elif self.labels.setdefault(found[0], row.label) != row.label:
                raise SourceError(f"{printable(row.name)} has two labels in {printable(path.name)}; remove one line")
        if not self.labels:
            example = min(images, key=byte_order) if images else "none"
            raise SourceError(
                f"no line of {printable(path.name)} names an image: it has {printable(rows[0].name)}, and the source "
                f"{printable(example)}"
            )
        if unknown:
            self.notes.append(
                f"{len(unknown):,} of {len(rows):,} lines of {printable(path.name)} name no image, such as "
                f"{printable(unknown[0])}"
            )

    def _in_order(self, labels: list[str], images: Collection[str]) -> None:
        if len(labels) != len(images):
            raise SourceError(
                f"{printable(self.path.name)} has {len(labels):,} labels without names, and there are {len(images):,} "
                "images to label; give one label for each image, or lines of name,label"
            )
        ordered = sorted(images, key=byte_order)
        self.labels = dict(zip(ordered, labels, strict=True))
        self.notes.append(
            f"{printable(self.path.name)} has no names: its lines are taken as the labels of the images in the order "
            f"of their names, the first {labels[0]} for {printable(ordered[0])}"
        )

    @staticmethod
    def _by_end(name: str, index: dict[str, list[str]]) -> list[str]:
        """Find an image by a name with more folders than the source has, such as ./val/1.jpg."""
        parts = name.replace("\\", "/").split("/")
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        return next((index[end] for end in ends if end in index), [])


def _names(path: str) -> Iterator[str]:
    """Every end of a path that begins at a folder, with and without the ending of the file."""
    parts = path.split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        yield name
        yield posixpath.splitext(name)[0]


def _without_ending(name: str) -> str:
    """Return the name of an image without its ending; another name, such as 0.1, has none."""
    return posixpath.splitext(name)[0] if is_image(name) else name


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SourceError(f"the list of labels {printable(str(path))} has more than {_LARGEST >> 20} MiB")
        return content(path).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise SourceError(f"the list of labels {printable(str(path))} cannot be read: {error.strerror}") from None
