"""Tiny-ImageNet: train/<id>/images/1.JPEG, val/images/1.JPEG with val_annotations.txt, test/images/1.JPEG."""

from __future__ import annotations

import posixpath

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Item
from tools.conversion.file_kinds import is_image
from tools.conversion.source import TRAIN, Request, Source, byte_order
from tools.conversion.tree import SourceError, SourceTree, read_member

ANNOTATIONS = "val_annotations.txt"


def tiny_imagenet(tree: SourceTree, request: Request) -> Source | None:
    """Return Tiny-ImageNet, if that is what the tree holds; the images of its test split have no labels.

    Raises:
        SourceError: the list of labels cannot be read, or a class of the validation split has no training images.
    """
    notes = next((name for name in tree.files if name.rpartition("/")[2] == ANNOTATIONS), None)
    if notes is None:
        return None
    root = posixpath.dirname(posixpath.dirname(notes))
    images = {name: place for name, place in tree.files.items() if is_image(name)}
    parts = {split: _below(images, posixpath.join(root, split)) for split in ("train", "val", "test")}
    if not parts["train"] or any(not rest.startswith("images/") for rest in parts["val"]):
        return None
    labels = _labels(notes, tree.files[notes])
    classes = tuple(sorted({rest.partition("/")[0] for rest in parts["train"]}, key=byte_order))
    if strange := sorted(set(labels.values()) - set(classes), key=byte_order):
        raise SourceError(f"{printable(notes)} names the class {printable(strange[0])}, which has no training images")
    label_of = {name: label for label, name in enumerate(classes)}
    source = Source(tree.name, "Tiny-ImageNet", classes, {}, list(tree.bad), root=root)
    found = {TRAIN: [(label_of[rest.partition("/")[0]], name) for rest, name in parts["train"].items()]}
    found["test"] = [(-1, name) for name in parts["test"].values()]
    found["val"] = []
    for rest, name in parts["val"].items():
        label = labels.get(posixpath.basename(rest))
        if label is None:
            source.bad.append((name, f"has no line in {ANNOTATIONS}"))
        else:
            found["val"].append((label_of[label], name))
    for split, entries in sorted(found.items()):
        ordered = sorted(entries, key=lambda entry: (entry[0], byte_order(entry[1])))
        source.splits[split] = [Item(name, label, tree.files[name]) for label, name in ordered]
    used = {name for part in parts.values() for name in part.values()}
    source.ignored = tree.others(used)
    return source


def _below(images: dict[str, ByteRange], folder: str) -> dict[str, str]:
    """Return path below a folder -> complete path."""
    start = f"{folder}/"
    return {name[len(start) :]: name for name in images if name.startswith(start)}


def _labels(name: str, place: ByteRange) -> dict[str, str]:
    try:
        rows = [line.split("\t") for line in read_member(name, place).decode("utf-8").splitlines() if line]
        return {row[0]: row[1] for row in rows}
    except (ValueError, IndexError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{printable(name)} cannot be read ({error}); unpack Tiny-ImageNet again") from None
