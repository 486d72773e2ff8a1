"""A CSV of paths and labels as a source: the images lie beside it, in any folders, and need no order.

A column "split" (train, val, test) divides them. An empty label leaves an image unlabelled.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Item
from tools.conversion.file_kinds import is_image
from tools.conversion.label_table import read_table
from tools.conversion.source import TRAIN, Request, Source
from tools.conversion.split_classes import joined_classes
from tools.conversion.split_names import split_name
from tools.conversion.tree import SourceError, SourceTree, read_member

TABLES = (".csv", ".tsv", ".txt", ".lst")


def path_table(tree: SourceTree, request: Request) -> Source | None:
    """Return the images that a table names, if the source is one table; they keep its order.

    Raises:
        SourceError: it names no files, an unknown split, or splits that do not fit together.
    """
    if len(tree.files) != 1 or tree.tars:
        return None
    ((name, place),) = tree.files.items()
    if not name.lower().endswith(TABLES) or Path(place.path).name != name:
        return None
    folder = Path(place.path).parent
    rows = read_table(
        read_member(name, place).decode("utf-8", "surrogateescape"), name, lambda file: (folder / file).is_file()
    )
    rows = [replace(row, name=_with_slashes(row.name)) for row in rows if row.name]
    if not rows or not any(map(is_image, (row.name for row in rows))):
        raise SourceError(f"{printable(name)} names no image files; give lines of path,label")
    source = Source(tree.name, "table of paths and labels", (), {})
    root = os.path.realpath(folder)
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        leads = os.path.realpath(folder / row.name)
        if not leads.startswith(f"{root.rstrip('/')}/") and not request.follow_links:
            source.bad.append((row.name, "lies outside the folder of the table; take such files with --follow-links"))
            continue
        split = split_name(row.split) if row.split else None
        if row.split and split is None:
            raise SourceError(f"{printable(row.name)} is in the split {printable(row.split)}, which is not known")
        parts[split.split if split else TRAIN].append((row.name, row.label))
    if TRAIN not in parts:
        raise SourceError(f"{printable(name)} has no image of a split train; call the split of the training images so")
    found = {split: {label or None for _, label in part} for split, part in parts.items()}
    source.classes = joined_classes(found, request, numeric=True)
    number = {label: at for at, label in enumerate(source.classes)}
    for key in sorted(parts):
        source.splits[key] = [
            Item(file, number.get(label, -1), ByteRange(os.fspath(folder / file))) for file, label in parts[key]
        ]
    return source


def _with_slashes(name: str) -> str:
    return name if "/" in name else name.replace("\\", "/")
