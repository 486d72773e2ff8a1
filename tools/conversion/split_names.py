"""Folders and files that are named as splits: train, val2017, seg_test, Training_Set, imagenet-train-000001."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from pipelines.printable import printable
from tools.conversion.source import TRAIN
from tools.conversion.tree import SourceError

_WORDS = {
    TRAIN: "train training",
    "val": "val valid validation dev eval evaluation",
    "test": "test testing",
    "unlabeled": "unlabeled unlabelled",
    "pred": "pred predict prediction",
}
SPLITS = {word: split for split, words in _WORDS.items() for word in words.split()}
UNLABELLED_SPLITS = ("unlabeled", "pred")
# Words beside the split's own that say nothing about it.
_BESIDE = "set split data dataset image images img imgs folder dir pics photos jpg jpeg png files of"
_NEUTRAL = frozenset(_BESIDE.split(" "))
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")


class SplitName(NamedTuple):
    """A name that holds one split's word.

    Attributes:
        split: TRAIN, "val", "test" ...
        rest: the other words of the name, which siblings share: ("seg",) in seg_train and seg_test.
    """

    split: str
    rest: tuple[str, ...]


def split_name(name: str) -> SplitName | None:
    """Return the split that a name speaks of; None if it holds no split's word, or several."""
    words = [word.lower() for word in _TOKEN.findall(name)]
    words = [word[:-3] if word.endswith("set") and word[:-3] in SPLITS else word for word in words]
    found = {SPLITS[word] for word in words if word in SPLITS}
    if len(found) != 1:
        return None
    return SplitName(found.pop(), tuple(word for word in words if word not in SPLITS and word not in _NEUTRAL))


def splits_of_paths(paths: Collection[str]) -> dict[str, str]:
    """Return path -> split, by the innermost name of each path that speaks of one.

    If the paths speak of one split only, or of none, all are the training split.

    Raises:
        SourceError: some are named as splits and others are not, or none is train.
    """
    found: dict[str, str | None] = {}
    for path in paths:
        named = [name.split for part in path.split("/") if (name := split_name(part))]
        found[path] = named[-1] if named else None
    if len(set(found.values())) < 2:
        return dict.fromkeys(paths, TRAIN)
    other = sorted(path for path, split in found.items() if split is None)
    if other or TRAIN not in found.values():
        what = f"{printable(other[0]) or '.'} is none" if other else "none of them is train"
        known = min(path for path, split in found.items() if split is not None)
        raise SourceError(
            f"the splits cannot be told by their names: {printable(known)} looks like one but {what}; take one with "
            "--folder"
        )
    return {path: split for path, split in found.items() if split is not None}


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Return name -> split of the siblings that are splits of one data set; empty if there are none.

    Names are splits if at least two of them speak of different splits and share their other words: "seg_train" and
    "seg_test", not "train_station" and "test_tube".

    Raises:
        ValueError: they are the splits of several data sets, such as trainA, testA, trainB and testB.
    """
    groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        if parsed := split_name(name):
            groups[parsed.rest][name] = parsed.split
    found = [group for group in groups.values() if len(set(group.values())) > 1]
    if len(found) > 1:
        raise ValueError(f"{', '.join(sorted(name for group in found for name in group)[:6])} are several data sets")
    return found[0] if found else {}
