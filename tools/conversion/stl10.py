"""STL-10's binary files, in a folder or a tar.

Papers that learn without labels train on the 5,000 labelled and the 100,000 unlabelled images together, so that is
OUT; the labelled ones alone are OUT-labelled (for evaluation), the test images OUT-test.
"""

from __future__ import annotations

import os
import posixpath

import numpy as np

from tools.conversion.byte_locations import ByteRange, Item, Planes
from tools.conversion.source import TRAIN, Source
from tools.conversion.tree import SourceError, SourceTree, read_member

SIDE = 96
BYTES = 3 * SIDE * SIDE


def stl10(tree: SourceTree) -> Source | None:
    """STL-10, if that is what the tree holds.

    Raises:
        SourceError: it looks like STL-10 but is damaged.
    """
    for path in tree.files:
        folder, base = posixpath.split(path)
        if base == "train_X.bin" and posixpath.join(folder, "train_y.bin") in tree.files:
            break
    else:
        return None
    files = {posixpath.basename(name): place for name, place in tree.files.items() if posixpath.dirname(name) == folder}
    classes = tuple(str(number) for number in range(1, 11))
    if "class_names.txt" in files:
        text = read_member("class_names.txt", files["class_names.txt"]).decode("utf-8", "replace")
        classes = tuple(line.strip() for line in text.splitlines() if line.strip())
    labelled = _images(files, "train", len(classes))
    splits = {TRAIN: labelled}
    if "unlabeled_X.bin" in files:
        splits = {TRAIN: labelled + _images(files, "unlabeled", 0), "labelled": labelled}
    if "test_X.bin" in files:
        splits["test"] = _images(files, "test", len(classes))
    return Source(tree.name, "STL-10 binary", classes, splits, list(tree.bad), tree.ignored)


def _images(files: dict[str, ByteRange], part: str, classes: int) -> list[Item]:
    """The images of a part in the file's order; unlabelled if there are no classes."""
    name = f"{part}_X.bin"
    place = files[name]
    if place.packing:
        raise SourceError(f"{name} is packed inside a zip and cannot be read in pieces; unpack the zip")
    size = place.size if place.size >= 0 else os.stat(place.path).st_size
    if not size or size % BYTES:
        raise SourceError(f"{name} has {size} bytes, which is no number of STL-10 images; get it again")
    number = size // BYTES
    labels = np.full(number, -1, dtype=np.int64)
    if classes:
        answers = f"{part}_y.bin"
        if answers not in files:
            raise SourceError(f"{answers} is missing beside {name}; get the archive again")
        labels = np.frombuffer(read_member(answers, files[answers]), dtype=np.uint8).astype(np.int64) - 1
        if len(labels) != number or labels.min() < 0 or labels.max() >= classes:
            raise SourceError(f"{answers} does not fit {name}: it must hold {number} labels from 1 to {classes}")
    return [
        Item(f"{name}#{i}", label, Planes(ByteRange(place.path, place.offset + i * BYTES, BYTES), SIDE, True))
        for i, label in enumerate(labels.tolist())
    ]
