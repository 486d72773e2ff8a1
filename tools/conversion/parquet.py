"""Parquet files with encoded images, as Hugging Face publishes data sets.

    data/train-00000-of-00002.parquet  data/train-00001-of-00002.parquet  data/test-00000-of-00001.parquet

An image is a cell of bytes, or a struct with the field `bytes`. The names of the classes are in the file's metadata.
The images keep their order. Needs pyarrow: pip install 'likeness[parquet]'.

Memory: of all rows the labels; of the images one row group in each process.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pipelines.printable import printable
from tools.conversion.byte_locations import STORED, Content, ParquetCell
from tools.conversion.file_kinds import is_image
from tools.conversion.parquet_rows import forget, open_parquet
from tools.conversion.source import Request, Source, byte_order
from tools.conversion.split_classes import joined_classes, labelled_items
from tools.conversion.split_names import splits_of_paths
from tools.conversion.tree import SourceError, SourceTree

if TYPE_CHECKING:
    import pyarrow

IMAGES = ("image", "img", "picture", "photo", "jpg", "png", "webp")  # columns, in the order in which they are taken
LABELS = ("label", "labels", "class", "fine_label", "category", "target", "cls")


def parquet(tree: SourceTree, request: Request) -> Source | None:
    """Return the images of parquet files, if the tree holds some.

    Raises:
        SourceError: pyarrow is missing, a file is damaged, or it does not say which columns are images and labels.
    """
    names = sorted((name for name in tree.files if name.lower().endswith(".parquet")), key=byte_order)
    if not names or any(map(is_image, tree.files)):  # beside image files it only describes them
        return None
    forget()
    source = Source(tree.name, "parquet files", (), {}, list(tree.bad))
    parts: dict[str, list[tuple[str, str | None, Content]]] = defaultdict(list)
    for name, split in splits_of_paths(names).items():
        parts[split] += _rows(name, tree)
    found = {split: {label for _, label, _ in part} for split, part in parts.items()}
    source.classes = joined_classes(found, request, numeric=True)
    source.classes = _class_order(names[0], tree, source.classes)
    source.splits = labelled_items(parts, source.classes)
    source.ignored = tree.others(names)
    return source


def _rows(name: str, tree: SourceTree) -> list[tuple[str, str | None, ParquetCell]]:
    """Return the name, the label and the place of every image of a file."""
    place = tree.files[name]
    if place.packing != STORED or place.offset or place.size >= 0:
        raise SourceError(f"{printable(name)} is inside an archive, where parquet cannot be read; unpack the archive")
    try:
        file = open_parquet(place.path)
        image, label = _columns(file.schema_arrow, name)
        labels = _names_of_classes(file.schema_arrow, label)
        rows: list[tuple[str, str | None, ParquetCell]] = []
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            bound = _bytes_of(facts, image)
            column = [None] * facts.num_rows
            if label is not None:
                column = file.read_row_group(group, columns=[label]).column(label).to_pylist()
            for row, value in enumerate(column):
                cell = ParquetCell(place.path, group, row, image, bound)
                rows.append((f"{name}#{len(rows)}", _label(value, labels), cell))
        return rows
    except ModuleNotFoundError:
        raise SourceError("parquet files need pyarrow; install it with: pip install 'likeness[parquet]'") from None
    except SourceError:
        raise
    except Exception as error:  # pyarrow raises many kinds on damaged files
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{printable(name)} cannot be read ({printable(reason)}); get it again") from None


def _label(value: Any, names: list[str] | None) -> str | None:
    if value is None or value == -1:  # Hugging Face's mark of a hidden label
        return None
    if names is not None and type(value) is int and 0 <= value < len(names):
        return names[value]
    return str(value)


def _columns(schema: pyarrow.Schema, name: str) -> tuple[str, str | None]:
    """Return the columns of the images and of the labels; None if there are none."""
    images = [column for column in schema.names if _holds_images(schema.field(column).type)]
    image = next((column for column in IMAGES if column in images), images[0] if len(images) == 1 else None)
    if image is None:
        listed = ", ".join(map(printable, schema.names[:8]))
        raise SourceError(f"{printable(name)} has no single column of images among {listed}; call it image")
    label = next((column for column in LABELS if column in schema.names), None)
    return image, label


def _bytes_of(group: pyarrow.RowGroupMetaData, column: str) -> int:
    """Return the bytes that a column has in a row group before compression, by the metadata of the file."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}."))


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(at).name == "bytes" for at in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _names_of_classes(schema: pyarrow.Schema, label: str | None) -> list[str] | None:
    """Return the names of the classes that Hugging Face keeps in the metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
    return names if len(set(names)) == len(names) else None


def _class_order(name: str, tree: SourceTree, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return all classes in the order of the metadata, where it names them, so that labels keep their numbers."""
    schema = open_parquet(tree.files[name].path).schema_arrow
    names = _names_of_classes(schema, _columns(schema, name)[1])
    return tuple(names) if names is not None and set(classes) <= set(names) else classes
