"""One list of classes for all splits of a source, and the images with the numbers of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipelines.printable import printable
from tools.conversion.byte_locations import Content, Item
from tools.conversion.source import TRAIN, Request, byte_order
from tools.conversion.tree import SourceError

DIGITS = 18  # of a class that is taken for a number


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
    if numeric and are_numbers(train):
        return tuple(sorted(train, key=lambda name: (int(name), byte_order(name))))
    return tuple(sorted(train, key=byte_order))


def are_numbers(classes: Iterable[str]) -> bool:
    """Whether all classes are whole numbers that are short enough to be more than texts of digits."""
    return all(name.isdecimal() and len(name) <= DIGITS for name in classes)


def labelled_items(
    splits: Mapping[str, Iterable[tuple[str, str | None, Content]]], classes: Sequence[str]
) -> dict[str, list[Item]]:
    """Return the items of all splits, the training split first, with the numbers of their classes as labels.

    Args:
        splits: split -> (name of an image, its class or None, where its bytes are), in index order.
        classes: names in the order of the labels.
    """
    number: dict[str | None, int] = {name: label for label, name in enumerate(classes)}
    number[None] = -1
    return {
        split: [Item(name, number[label], content) for name, label, content in splits[split]]
        for split in sorted(splits)  # TRAIN is the empty text
    }
