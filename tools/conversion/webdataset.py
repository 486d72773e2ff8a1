"""WebDataset samples: files of one key, such as 000001.jpg with 000001.cls, in one tar or in many shards.

The label is in KEY.cls (a number or a name), else in a field of KEY.json, else in KEY.txt if that holds class names and
not captions. Shards and folders that are named as splits are splits.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter, defaultdict
from typing import Any

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Item
from tools.conversion.class_tars import SHARD
from tools.conversion.file_kinds import is_image
from tools.conversion.source import TRAIN, Request, Source, byte_order
from tools.conversion.split_classes import joined_classes
from tools.conversion.split_names import split_name
from tools.conversion.tree import SourceError, SourceTree, read_member

LABELS = ("cls", "json", "txt")  # in the order in which they are asked
FIELDS = ("class_name", "label_name", "label", "class", "cls", "category", "target", "class_id")  # of a .json
_OTHER_TEXT = re.compile(r"[-\d.]+(\s+[-\d.]+)+|.{65,}", re.DOTALL)  # in a .txt: boxes, and whole sentences


def webdataset(tree: SourceTree, request: Request) -> Source | None:
    """Return the samples, if most images have a file with a label beside them.

    Raises:
        SourceError: a sample has several images, shards of splits are mixed with others, or splits do not fit together.
    """
    suffixes = Counter(posixpath.basename(name).partition(".")[2].lower() for name in tree.files)
    if not any(suffixes[kind] for kind in LABELS):
        return None
    samples = _samples(tree.files)
    folders = {posixpath.dirname(key) for key in samples}
    in_shards = len(folders) == 1 or all(SHARD.fullmatch(posixpath.basename(folder)) for folder in folders)
    for kind in LABELS if in_shards else LABELS[:1]:  # elsewhere folders are classes, and .json and .txt companions
        labels = _labels(samples, tree.files, kind)
        if labels is not None:
            break
    else:
        return None
    _refuse_second_images(samples)
    source = Source(tree.name, f"WebDataset with .{kind}", (), {}, list(tree.bad))
    split_of = _splits(folders)
    parts: dict[str, dict[str, str | None]] = defaultdict(dict)  # split -> image -> class
    for key, sample in samples.items():
        name, label = sample["image"], labels.get(key)
        if label is None:
            source.bad.append((name, f"has no label in {posixpath.basename(key)}.{kind}, as the others have"))
        else:
            parts[split_of[posixpath.dirname(key)]][name] = None if label == "-1" else label
    classes = joined_classes({split: set(part.values()) for split, part in parts.items()}, request, numeric=True)
    number: dict[str | None, int] = {name: label for label, name in enumerate(classes)}
    for split in sorted(parts):
        names = sorted(parts[split], key=byte_order)
        source.splits[split] = [Item(name, number.get(parts[split][name], -1), tree.files[name]) for name in names]
    source.classes = _names(classes, tree)
    used = {file for sample in samples.values() for suffix, file in sample.items() if suffix in ("image", kind)}
    source.ignored = tree.ignored | (tree.files.keys() - used)
    return source


def _samples(files: dict[str, ByteRange]) -> dict[str, dict[str, str]]:
    """Return key -> "image", "second" image and the kinds of labels -> name of the file; only keys with an image."""
    samples: dict[str, dict[str, str]] = defaultdict(dict)
    for name in files:
        folder, base = posixpath.split(name)
        stem, _, suffix = base.partition(".")
        key = posixpath.join(folder, stem)
        kind = "image" if is_image(base) else suffix.lower()
        if kind == "image" and "image" in samples[key]:
            samples[key]["second"] = name
        elif kind == "image" or kind in LABELS:
            samples[key][kind] = name
    samples = {key: sample for key, sample in samples.items() if "image" in sample}
    return samples


def _refuse_second_images(samples: dict[str, dict[str, str]]) -> None:
    double = next((sample for sample in samples.values() if "second" in sample), None)
    if double:
        raise SourceError(
            f"{printable(double['image'])} and {printable(double['second'])} are images of one sample; take "
            "--layout flat (all images, unlabelled), or make shards with one image a sample"
        )


def _labels(samples: dict[str, dict[str, str]], files: dict[str, ByteRange], kind: str) -> dict[str, str] | None:
    """Return key -> class; None if the files hold no labels but captions or other facts."""
    if 2 * sum(kind in sample for sample in samples.values()) <= len(samples):
        return None
    labels = {}
    for key, sample in samples.items():
        if kind in sample:
            text = read_member(sample[kind], files[sample[kind]]).decode("utf-8", "replace").strip()
            label = _field(text) if kind == "json" else text
            if label and "\n" not in label and (kind != "txt" or not _OTHER_TEXT.fullmatch(label)):
                labels[key] = label
    few = len(set(labels.values())) <= max(1, len(labels) // 2)
    if kind == "cls" or (2 * len(labels) > len(samples) and (few or all(text.isdecimal() for text in labels.values()))):
        return labels
    return None


def _field(text: str) -> str | None:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = [found.get(field) for field in FIELDS] if isinstance(found, dict) else []
    return next((str(value) for value in values if type(value) in (int, str)), None)


def _splits(folders: set[str]) -> dict[str, str]:
    """Return the split of each folder or shard.

    Raises:
        SourceError: some are named as splits and others are not.
    """
    found: dict[str, str | None] = {}
    for folder in folders:
        named = [name.split for part in folder.split("/") if (name := split_name(part))]
        found[folder] = named[-1] if named else None
    if len(set(found.values())) < 2:
        return dict.fromkeys(folders, TRAIN)
    other = sorted(folder for folder, split in found.items() if split is None)
    if other or TRAIN not in found.values():
        what = f"{printable(other[0]) or '.'} is none" if other else "none of them is train"
        known = sorted(folder for folder, split in found.items() if split is not None)
        raise SourceError(f"{printable(known[0])} looks like a shard of a split but {what}; take one with --folder")
    return {folder: split for folder, split in found.items() if split is not None}


def _names(classes: tuple[str, ...], tree: SourceTree) -> tuple[str, ...]:
    """Return the names of numbered classes, if the source lists them in classnames.txt, else the numbers."""
    path = next((name for name in tree.files if posixpath.basename(name) == "classnames.txt"), None)
    if path is None or not all(name.isdecimal() for name in classes):
        return classes
    names = read_member(path, tree.files[path]).decode("utf-8", "replace").splitlines()
    fits = classes and int(classes[-1]) < len(names) and len(set(names)) == len(names)
    return tuple(names[int(name)] for name in classes) if fits else classes
