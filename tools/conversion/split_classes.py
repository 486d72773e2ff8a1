"""One list of classes for all splits of a source."""

from __future__ import annotations

from pipelines.printable import printable
from tools.conversion.source import TRAIN, Request, byte_order
from tools.conversion.tree import SourceError


def joined_classes(found: dict[str, set[str | None]], request: Request, numeric: bool = False) -> tuple[str, ...]:
    """Return the sorted classes: those of the training split, or if that is unlabelled, those of the other splits.

    Args:
        found: split -> names of its classes; None for images without one.
        numeric: whether classes that are all numbers are in the order of the numbers, and not of their digits.

    Raises:
        SourceError: another split has a class that the training split lacks, and the request is not for the union.
    """
    names = {split: {name for name in classes if name is not None} for split, classes in found.items()}
    union = set().union(*names.values())
    train = names.get(TRAIN) or union
    if request.classes == "union":
        train = union
    for split in sorted(names):
        extra = sorted(names[split] - train, key=byte_order)
        if extra:
            shared = "no class" if not names[split] & train else f"{len(names[split] & train):,} classes"
            raise SourceError(
                f"class {printable(extra[0])!r} is in the split {split} but not in train ({len(extra):,} such; "
                f"{shared} in both); take --classes union (the classes of all splits), or one split alone with --folder"
            )
    if numeric and all(name.isdecimal() for name in train):
        return tuple(sorted(train, key=int))
    return tuple(sorted(train, key=byte_order))
