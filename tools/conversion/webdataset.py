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
from tools.conversion.byte_locations import ByteRange
from tools.conversion.class_tars import SHARD
from tools.conversion.file_kinds import is_image
from tools.conversion.source import Request, Source, byte_order
from tools.conversion.split_classes import are_numbers, joined_classes, labelled_items
from tools.conversion.split_names import splits_of_paths
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
    split_of = splits_of_paths(folders)
    parts: dict[str, dict[str, str | None]] = defaultdict(dict)  # split -> image -> class
    for key, sample in samples.items():
        name, label = sample["image"], labels.get(key)
        if label is None:
            source.bad.append((name, f"has no label in {posixpath.basename(key)}.{kind}, as the others have"))
        else:
            parts[split_of[posixpath.dirname(key)]][name] = None if label == "-1" else label
    classes = joined_classes({split: set(part.values()) for split, part in parts.items()}, request, numeric=True)
    rows = {
        split: [(name, part[name], tree.files[name]) for name in sorted(part, key=byte_order)]
        for split, part in parts.items()
    }
    source.splits = labelled_items(rows, classes)
    source.classes = _names(classes, tree)
    used = {file for sample in samples.values() for suffix, file in sample.items() if suffix in ("image", kind)}
    source.ignored = tree.others(used)
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
    if kind == "cls" or (2 * len(labels) > len(samples) and (few or are_numbers(labels.values()))):
        return labels
    return None


def _field(text: str) -> str | None:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = [found.get(field) for field in FIELDS] if isinstance(found, dict) else []
    return next((str(value) for value in values if type(value) in (int, str)), None)


def _names(classes: tuple[str, ...], tree: SourceTree) -> tuple[str, ...]:
    """Return the names of numbered classes, if the source lists them in classnames.txt, else the numbers."""
    path = next((name for name in tree.files if posixpath.basename(name) == "classnames.txt"), None)
    if path is None or not are_numbers(classes):
        return classes
    names = read_member(path, tree.files[path]).decode("utf-8", "replace").splitlines()
    numbers = [*map(int, classes)]
    fits = numbers and numbers[-1] < len(names) and len(set(numbers)) == len(numbers) and len(set(names)) == len(names)
    return tuple(names[number] for number in numbers) if fits else classes
