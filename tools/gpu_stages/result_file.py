"""The result of a stage: a JSON file that is complete at every moment, in the form of `tools.benchmark --json`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: What became of a stage.
DONE, FAILED, STOPPED, NOT_RUN = "done", "failed", "stopped at its limit", "not run"


def write(path: Path, result: dict[str, Any]) -> None:
    """Replace a file in one step, so that whoever copies the folder at any moment gets valid JSON."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(unfinished, path)


def read(path: Path) -> dict[str, Any]:
    """Return what a stage has written so far; nothing if it ended before it wrote."""
    return dict(json.loads(path.read_text())) if path.exists() else {}
