"""The rows of metrics.jsonl: an object a line, each with the step that it belongs to."""

from __future__ import annotations

import json
from typing import Any


def row_of(line: bytes | str) -> dict[str, Any] | None:
    """The row that a line holds; None where the line is damaged or was cut."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def rows_up_to(content: bytes, step: int, rows: int) -> list[bytes]:
    """The lines that belong to a checkpoint, as they are, without what is damaged.

    Args:
        content: of metrics.jsonl.
        step: of the checkpoint. Rows of earlier steps belong to it, whatever became of other lines.
        rows: that there were when it was written: its own step may have got more of them afterwards.
    """
    kept = []
    for number, line in enumerate(content.split(b"\n")):
        row = row_of(line)
        if row is not None and (row["step"] < step or (row["step"] == step and number < rows)):
            kept.append(line)
    return kept
