"""The files that hold results: eval-NAME.json for the newest of a protocol, evaluations.jsonl for all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tools.evaluation.options import EvaluationOptions


def write_result(options: EvaluationOptions, result: dict[str, Any]) -> Path:
    """Replace the protocol's file by this result, append the result to the history, and return the file.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path = options.result_file(f"eval-{options.protocol.name}.json")
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    partial.replace(path)
    append_line(options.result_file("evaluations.jsonl"), json.dumps(result, allow_nan=False))
    return path


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and wait for the disk. A last line that a power failure has cut short is ended first."""
    with path.open("a+b") as file:
        length = file.seek(0, os.SEEK_END)
        cut_short = length > 0 and os.pread(file.fileno(), 1, length - 1) != b"\n"
        file.write(("\n" * cut_short + line + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
