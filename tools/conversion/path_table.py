"""A CSV of paths and labels as a source: the images lie beside it, in any folders, and need no order.

A column "split" (train, val, test) divides them. An empty label leaves an image unlabelled.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Content
from tools.conversion.file_kinds import is_image
from tools.conversion.label_table import Row, read_table
from tools.conversion.source import TRAIN, Request, Source
from tools.conversion.split_classes import joined_classes, labelled_items
from tools.conversion.split_names import split_name
from tools.conversion.tree import SourceError, SourceTree, read_member

TABLES = (".csv", ".tsv", ".txt", ".lst")


def path_table(tree: SourceTree, request: Request) -> Source | None:
    """Return the images that a table names, if the source is one table; they keep its order.

    Raises:
        SourceError: it names no files, an unknown split, one file with two labels, or splits that do not fit together.
    """
    if len(tree.files) != 1 or tree.tars:
        return None
    ((name, place),) = tree.files.items()
    if not name.lower().endswith(TABLES) or Path(place.path).name != name:
        return None
    folder = Path(place.path).parent
    rows = read_table(
        read_member(name, place).decode("utf-8", "surrogateescape"), name, lambda file: os.path.isfile(folder / file)
    )
    rows = _once([replace(row, name=_with_slashes(row.name)) for row in rows if row.name], name)
    if not rows or not any(map(is_image, (row.name for row in rows))):
        raise SourceError(f"{printable(name)} names no image files; give lines of path,label")
    source = Source(tree.name, "table of paths and labels", (), {}, list(tree.bad))
    root = os.path.realpath(folder)
    splits = {row.split: _split(row) for row in rows}
    if TRAIN not in splits.values():
        raise SourceError(f"{printable(name)} has no image of a split train; call the split of the training images so")
    parts: dict[str, list[tuple[str, str | None, Content]]] = defaultdict(list)
    for row in rows:
        if "\0" in row.name:
            source.bad.append((row.name, "has a zero byte in its path, which no file has"))
            continue
        leads = os.path.realpath(folder / row.name)
        if not leads.startswith(f"{root.rstrip('/')}/") and not request.follow_links:
            source.bad.append((row.name, "lies outside the folder of the table; take such files with --follow-links"))
            continue
        parts[splits[row.split]].append((row.name, row.label or None, ByteRange(os.fspath(folder / row.name))))
    found = {split: {label for _, label, _ in part} for split, part in parts.items()}
    source.classes = joined_classes(found, request, numeric=True)
    source.splits = labelled_items(parts, source.classes)
    return source


def _split(row: Row) -> str:
    """Return the split that a row names, TRAIN if it names none.

    Raises:
        SourceError: its name is not known.
    """
    if not row.split:
        return TRAIN
    if known := split_name(row.split):
        return known.split
    raise SourceError(f"{printable(row.name)} is in the split {printable(row.split)}, which is not known")


def _once(rows: list[Row], table: str) -> list[Row]:
    """Return the rows without those that repeat another one.

    Raises:
        SourceError: two rows give one file different labels or splits.
    """
    first: dict[str, Row] = {}
    for row in rows:
        same = first.setdefault(os.path.normpath(row.name), row)
        if (same.label, same.split) != (row.label, row.split):
            what = "labels" if same.label != row.label else "splits"
            raise SourceError(f"{printable(row.name)} has two {what} in {printable(table)}; remove one line")
    return list(first.values())


def _with_slashes(name: str) -> str:
    return name if "/" in name else name.replace("\\", "/")
