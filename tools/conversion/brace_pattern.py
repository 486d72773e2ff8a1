"""Patterns that name many files, as WebDataset writes them: imagenet-train-{000000..001281}.tar, {a,b}.tar."""

from __future__ import annotations

import os
import re
from itertools import product
from math import prod
from pathlib import Path

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange
from tools.conversion.tree import SourceError, SourceTree

_BRACES = re.compile(r"\{([^{}]*)\}")
_MOST = 1_000_000  # files of one pattern


def is_pattern(name: str) -> bool:
    """Whether a SOURCE is a pattern, and not the name of something that exists."""
    return _BRACES.search(name) is not None and not Path(name).exists()


def expand(pattern: str) -> list[str]:
    """Return all names of a pattern, in its order.

    Raises:
        SourceError: it has braces that are neither a range of numbers nor a list, or too many names.
    """
    pieces = _BRACES.split(pattern)  # text, braces, text, braces, text
    choices = [[piece] if number % 2 == 0 else _choices(piece, pattern) for number, piece in enumerate(pieces)]
    if prod(map(len, choices)) > _MOST:
        raise SourceError(f"the pattern {printable(pattern)} names more than {_MOST:,} files")
    return ["".join(words) for words in product(*choices)]


def _choices(text: str, pattern: str) -> list[str]:
    if "," in text:
        return text.split(",")
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text)
    if not numbers or int(numbers[1]) > int(numbers[2]):
        raise SourceError(
            f"the braces {{{printable(text)}}} in {printable(pattern)} are no range; write {{000000..000127}} or "
            "{a,b}"
        )
    first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
    if last - first >= _MOST:
        raise SourceError(f"the pattern {printable(pattern)} names more than {_MOST:,} files")
    return [f"{number:0{width}}" for number in range(first, last + 1)]


def pattern_tree(pattern: str) -> SourceTree:
    """Return the files of a pattern as a tree, named by their paths below the folder that all are in.

    Raises:
        SourceError: one of them does not exist or is a folder.
    """
    paths = expand(pattern)
    folders = [path for path in paths if Path(path).is_dir()]
    if folders:
        raise SourceError(
            f"{len(folders):,} of the {len(paths):,} names of {printable(pattern)} are folders, such as "
            f"{printable(folders[0])}, and a pattern names files; give the folder that they lie in as SOURCE"
        )
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise SourceError(
            f"{len(missing):,} of the {len(paths):,} files of {printable(pattern)} are missing, such as "
            f"{printable(missing[0])}"
        )
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    files = {os.path.relpath(os.path.abspath(path), root): ByteRange(path) for path in paths}
    return SourceTree(os.path.basename(pattern), files)
