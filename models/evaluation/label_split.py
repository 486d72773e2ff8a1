"""Which labels are used: a share of every class drawn by a seed, or a published list of images.

A split is a pure function of (labels, share, seed): each sample has a random number of its own, and the samples of each
class with the smallest numbers are chosen. So 1 % lies within the 10 % of the same seed, and another data set of the
same length with the same labels has the same split.

Shapes: N samples, M chosen ones.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.regular_file import content
from pipelines.plan.random_numbers import bits, key

LABELS, HELD_OUT = range(2)  # the purposes of a split


def parse_share(text: str) -> float:
    """Return the share that "1%", "10%" or "all" names, above 0 and at most 1.

    Raises:
        ValueError: the text is none of them.
    """
    try:
        share = 1.0 if text == "all" else float(text.removesuffix("%")) / 100
        if (text != "all" and not text.endswith("%")) or not 0 < share <= 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"--labels is '{text}'; give 'all' or a percentage such as 10%") from None
    return share


def balanced_split(labels_N: NDArray[np.int64], share: float, seed: int, purpose: int = LABELS) -> NDArray[np.int64]:
    """Choose round(share * size) samples of every class, and at least one.

    Args:
        labels_N: -1 where unlabelled; such samples are never chosen.
        share: above 0, at most 1.
        purpose: LABELS or HELD_OUT; the splits of one seed for different purposes are independent.

    Returns:
        The ascending numbers [M] of the samples chosen.
    """
    number_N = np.flatnonzero(labels_N >= 0)
    if share == 1:
        return number_N
    draw_N = bits(key(seed, purpose, number_N), 1)[:, 0]
    order_N = np.lexsort((draw_N, labels_N[number_N]))  # by class, and within a class by the random number
    sorted_N = labels_N[number_N][order_N]
    position_N = np.arange(len(sorted_N)) - np.searchsorted(sorted_N, sorted_N)  # within the class
    size_N = np.bincount(sorted_N)[sorted_N]
    count_N = np.maximum(1, np.floor(share * size_N + 0.5))
    return np.sort(number_N[order_N[position_N < count_N]])


def held_out_split(labels_N: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Choose samples for selecting a setting: independent of `balanced_split`, and never a class's only label.

    Raises:
        ValueError: no class has a label to spare.
    """
    sizes = np.bincount(labels_N[labels_N >= 0])
    spare_N = np.where((labels_N >= 0) & (sizes[labels_N] > 1), labels_N, -1)
    if not (spare_N >= 0).any():
        raise ValueError("no class has two labels, so none can be held out to choose a rate; give one --lr")
    return balanced_split(spare_N, share, seed, HELD_OUT)


def read_list(path: Path, names: list[str], labels_N: NDArray[np.int64], source: Path) -> tuple[NDArray[np.int64], str]:
    """Read a published list of labelled images: file names, with or without folders and suffix, one a line.

    Args:
        names: the names of all images of the data set.
        source: the data set's path, for messages.

    Returns:
        The images' ascending numbers [M], and a digest of them.

    Raises:
        ValueError: the list cannot be read, the data set keeps no names, or a line names no image, several, or one
            without a label.
    """
    if not names:
        raise ValueError(f"{source} keeps no names of its images, which --label-list needs; convert it again")
    known: dict[str, int] = {}  # -1 where several images have the name
    for number, name in enumerate(names):
        image = PurePosixPath(name)
        for form in {name, image.name, image.stem, str(image.with_suffix(""))}:
            known[form] = number if form not in known else -1
    try:
        text = content(path).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ValueError(f"the list {path} cannot be read: {error.strerror}") from None
    chosen = set()
    for line, entry in enumerate(text.splitlines(), 1):
        if not (name := entry.strip()):
            continue
        found = known.get(name, known.get(PurePosixPath(name).name))
        if found is None:
            raise ValueError(f"{path}, line {line}: {source} has no image '{name}'")
        if found < 0:
            raise ValueError(f"{path}, line {line}: {source} has several images '{name}'; name them with their folders")
        if labels_N[found] < 0:
            raise ValueError(f"{path}, line {line}: image '{name}' of {source} has no label")
        chosen.add(found)
    if not chosen:
        raise ValueError(f"{path} names no image")
    numbers = np.array(sorted(chosen), dtype=np.int64)
    return numbers, hashlib.sha256(numbers.tobytes()).hexdigest()[:8]
