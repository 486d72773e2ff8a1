"""Tables of names and labels of images: CSV with or without a header, two words a line, or one number a line.

    id,breed                     image,label,split            ILSVRC2012_val_00000001.JPEG 65        490
    0a1b,collie                  a/1.jpg,cat,train            ILSVRC2012_val_00000002.JPEG 970       361

The last is the label of each image in the order of their names, as in ILSVRC2012_validation_ground_truth.txt. Kaggle's
PredictionString ("n01440764 13 48 446 370", class and box) gives its class.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.printable import printable
from tools.conversion.file_kinds import is_image
from tools.conversion.tree import SourceError

# Names of columns, in the order in which they are taken.
_NAME = "path file_path filepath image_path filename file_name file image_file image_name img_name fname image img"
_NAME += " image_id imageid img_id id_code isic_id photo name id"
_LABEL = "class_name classname label_name category_name label labels class category breed species target diagnosis"
_LABEL += " predictionstring class_id category_id level emotion y tag"
NAMES, LABELS, SPLIT = _NAME.split(), _LABEL.split(), "split"
_BOXES = re.compile(r"(\S+)( [-\d.]+){4}( \S+( [-\d.]+){4})* ?")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: of an image; "" in a table of labels alone.
        label: "" if the line gives none.
        split: "" if there is no such column.
    """

    name: str
    label: str
    split: str = ""


def read_table(text: str, file: str, known: Callable[[str], bool]) -> list[Row]:
    """Return the lines of a table.

    Args:
        file: its name, for messages.
        known: whether a name is that of an image, by which a first line is told from a header.

    Raises:
        SourceError: it is empty, or its columns cannot be told.
    """
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if not lines:
        raise SourceError(f"{printable(file)} holds no lines; give a list of name,label")
    try:
        rows = _cells(lines)
    except csv.Error as error:
        raise SourceError(f"{printable(file)} is no table that can be read ({error})") from None
    width = max(map(len, rows))
    if width == 1:
        labels = [row[0] for row in rows]
        if all(label.isdigit() for label in labels):
            return [Row("", label) for label in labels]
        return [Row(label, "") for label in labels]
    header = [cell.strip().lower().replace(" ", "_") for cell in rows[0]]
    columns = _columns(header)
    if columns is None and width == 2:
        first = [] if not known(rows[0][0]) and len(rows) > 1 and known(rows[1][0]) else rows[:1]  # an unknown header
        columns, rows = (0, 1, None), [*first, *rows[1:]]
    elif columns is None:
        raise SourceError(
            f"the columns of {printable(file)} ({printable(', '.join(rows[0][:8]))}) do not say which are names and "
            "labels; give a table of two columns, name,label"
        )
    elif len(rows) == 1:
        raise SourceError(f"{printable(file)} holds no lines below its header; give a list of name,label")
    else:
        rows = rows[1:]
    name, label, split = columns
    return [Row(_cell(row, name), _class(_cell(row, label)), _cell(row, split)) for row in rows]


def _cells(lines: list[str]) -> list[list[str]]:
    """Split lines at the separator that the first ones have: tab, comma, semicolon, or the space beside a name."""
    for separator in "\t,;":
        if all(separator in line for line in lines[:5]):
            return list(csv.reader(io.StringIO("\n".join(lines)), delimiter=separator))
    named_first = is_image(lines[0].split(None, 1)[0])
    return [line.split(None, 1) if named_first else line.rsplit(None, 1) for line in lines]


def _columns(header: list[str]) -> tuple[int, int, int | None] | None:
    """Return the columns of name, label and split that a header names; None if it is no header."""
    name = next((header.index(word) for word in NAMES if word in header), None)
    label = next((header.index(word) for word in LABELS if word in header), None)
    split = header.index(SPLIT) if SPLIT in header else None
    others = [number for number in range(len(header)) if number not in (name, split)]
    if name is not None and label is None and len(others) == 1:
        label = others[0]
    return None if name is None or label is None else (name, label, split)


def _cell(row: list[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""


def _class(label: str) -> str:
    boxes = _BOXES.fullmatch(label)
    return boxes[1] if boxes else label
