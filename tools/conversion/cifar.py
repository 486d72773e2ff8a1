"""CIFAR-10 and CIFAR-100 as published: python batches (pickles) or binary batches, in a folder or archive.

The images keep their published order. A pickle can run any program when it is loaded, so `cifar_pickle.py` reads it.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

import numpy as np

from tools.conversion.byte_locations import ByteRange, Item, Planes
from tools.conversion.cifar_pickle import PickleError, read
from tools.conversion.source import TRAIN, Source
from tools.conversion.tree import SourceError, SourceTree, read_member

SIDE = 32
BYTES = 3 * SIDE * SIDE
PARTS = re.compile(r"data_batch_\d+(\.bin)?|train(\.bin)?")


def _unpickle(name: str, place: ByteRange) -> dict[str, Any]:
    try:
        return read(read_member(name, place))
    except PickleError as error:
        raise SourceError(f"{name} is refused as a CIFAR batch: it {error}; get the archive again") from None


def _names(name: str, meta: dict[str, Any]) -> tuple[str, ...]:
    """The classes; only texts, as writing out a nested list that holds itself many times would fill the memory."""
    found = meta.get("label_names") or meta.get("fine_label_names") or []
    if not isinstance(found, list) or not all(isinstance(label, str | bytes) for label in found):
        raise SourceError(f"{name} is no list of CIFAR classes; get the archive again")
    return tuple(label.decode("utf-8", "replace") if isinstance(label, bytes) else label for label in found)


def cifar(tree: SourceTree) -> Source | None:
    """CIFAR batches, if that is what the tree holds.

    Raises:
        SourceError: it looks like CIFAR but is damaged or hostile.
    """
    for meta_name, train_name, test_name, layout in (
        ("batches.meta", "data_batch_1", "test_batch", _python),
        ("meta", "train", "test", _python),
        ("batches.meta.txt", "data_batch_1.bin", "test_batch.bin", _binary),
        ("fine_label_names.txt", "train.bin", "test.bin", _binary),
    ):
        for path in tree.files:
            folder, base = posixpath.split(path)
            if base != meta_name or posixpath.join(folder, train_name) not in tree.files:
                continue
            files = {
                posixpath.basename(name): place
                for name, place in tree.files.items()
                if posixpath.dirname(name) == folder
            }
            several = "_1" in train_name
            trains = [name for name in files if PARTS.fullmatch(name) and name.endswith(".bin") == (layout is _binary)]
            trains = sorted(trains, key=lambda name: (len(name), name)) if several else [train_name]
            splits = {TRAIN: trains} | ({"test": [test_name]} if test_name in files else {})
            source = layout(tree.name, files, meta_name, splits)
            used = {
                posixpath.join(folder, name) for name in (meta_name, *(n for names in splits.values() for n in names))
            }
            source.bad = list(tree.bad)
            source.ignored = tree.others(used)
            if several and len(trains) != 5:
                source.notes.append(f"found {len(trains)} training batches; CIFAR-10 has 5")
            return source
    return None


def _python(name: str, files: dict[str, ByteRange], meta_name: str, splits: dict[str, list[str]]) -> Source:
    meta = _unpickle(meta_name, files[meta_name])
    classes = _names(meta_name, meta)
    items: dict[str, list[Item]] = {}
    for suffix, batches in splits.items():
        items[suffix] = []
        for batch_name in batches:
            batch = _unpickle(batch_name, files[batch_name])
            data, labels = batch.get("data"), batch.get("labels", batch.get("fine_labels"))
            if (
                not isinstance(data, np.ndarray)
                or data.shape[1:] != (BYTES,)
                or not isinstance(labels, list)
                or len(labels) != len(data)
            ):
                raise SourceError(f"{batch_name} is no CIFAR batch: no data [N, {BYTES}] of bytes with N labels")
            images = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                if type(label) is not int or not 0 <= label < len(classes):
                    raise SourceError(
                        f"{batch_name} is no CIFAR batch: image {i} has no label of {len(classes)} classes"
                    )
                items[suffix].append(Item(f"{batch_name}#{i}", int(label), image))
    return Source(name, f"CIFAR-{len(classes)} python batches", classes, items)


def _binary(name: str, files: dict[str, ByteRange], meta_name: str, splits: dict[str, list[str]]) -> Source:
    meta = read_member(meta_name, files[meta_name]).decode("utf-8", "replace")
    classes = tuple(line for line in meta.splitlines() if line.strip())
    front = 2 if meta_name == "fine_label_names.txt" else 1  # CIFAR-100 has the coarse label before the fine one
    items: dict[str, list[Item]] = {}
    for suffix, batches in splits.items():
        items[suffix] = []
        for batch_name in batches:
            place = files[batch_name]
            data = np.frombuffer(read_member(batch_name, place), dtype=np.uint8)
            if not len(data) or len(data) % (front + BYTES):
                raise SourceError(
                    f"{batch_name} has {len(data)} bytes, which is no number of CIFAR images; get it again"
                )
            rows = data.reshape(-1, front + BYTES)
            labels = rows[:, front - 1].tolist()
            if max(labels) >= len(classes):
                raise SourceError(f"{batch_name} has label {max(labels)} of {len(classes)} classes; get it again")
            if place.packing:  # in a zip: nothing to point at, so the pixels go along
                images = np.ascontiguousarray(rows[:, front:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
                items[suffix] += [Item(f"{batch_name}#{i}", k, images[i]) for i, k in enumerate(labels)]
                continue
            for i, label in enumerate(labels):
                at = ByteRange(place.path, place.offset + i * (front + BYTES) + front, BYTES)
                items[suffix].append(Item(f"{batch_name}#{i}", label, Planes(at, SIDE, False)))
    return Source(name, f"CIFAR-{len(classes)} binary batches", classes, items)
