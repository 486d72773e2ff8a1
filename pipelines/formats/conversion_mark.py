"""The mark that the data sets of one conversion share, by which a split finds its siblings.

    "conversion": {"mark": "5f0c...", "split": "test", "splits": ["", "test"]}     in the card of photos-test.beton

Names do not tell: photos-test.beton may lie beside photos.beton from an earlier conversion of something else. The mark
is a checksum of the contents of all splits. A data set that is converted again, to another format or size, keeps the
mark of its source. Cards that were written before there were marks have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.formats.digests import hexadecimal

KEY = "conversion"


def marks(checksums: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what the card of each split says of the conversion.

    Args:
        checksums: split -> content checksum of its images; "" is the training split.
    """
    splits = sorted(checksums)
    mark = hexadecimal(json.dumps([[split, checksums[split]] for split in splits]).encode())
    return {split: {"mark": mark, "split": split, "splits": splits} for split in splits}


def mark_of(card: Mapping[str, Any]) -> str | None:
    """Return the mark of the conversion that wrote a card; None if it is older than marks."""
    conversion = card.get(KEY)
    mark = conversion.get("mark") if isinstance(conversion, dict) else None
    return mark if isinstance(mark, str) else None


def are_siblings(train: Mapping[str, Any], card: Mapping[str, Any], split: str) -> bool | None:
    """Return whether a card is of a split of the training images' conversion; None if both are older than marks."""
    if mark_of(train) is None and mark_of(card) is None:
        return None
    return mark_of(train) == mark_of(card) and card[KEY].get("split") == split


def split_path(path: Path, split: str) -> Path:
    """Return where a split lies beside the training split: photos.beton, and photos-test.beton for "test"."""
    return path if split == "" else path.with_name(f"{path.stem}-{split}{path.suffix}")
