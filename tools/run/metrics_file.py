"""The rows of metrics.jsonl: one JSON object per line, each with the step that it belongs to."""

from __future__ import annotations

import json
from typing import Any


def row_of(line: bytes | str) -> dict[str, Any] | None:
    """Return the row that a line holds; None if the line is damaged or incomplete."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def rows_up_to(content: bytes, step: int, rows: int) -> list[bytes]:
    """Return the undamaged lines of metrics.jsonl that had been logged when a checkpoint was saved, unchanged.

    All rows of earlier steps belong to the checkpoint. Of the rows of its own step only those do that were among the
    first `rows` lines; an evaluation after the checkpoint may have logged further ones.

    Args:
        content: the content of metrics.jsonl.
        step: the step of the checkpoint.
        rows: the number of rows when the checkpoint was saved.
    """
    kept = []
    for number, line in enumerate(content.split(b"\n")):
        row = row_of(line)
        if row is not None and (row["step"] < step or (row["step"] == step and number < rows)):
            kept.append(line)
    return kept
