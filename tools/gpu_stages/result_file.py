"""The result of a stage: a JSON file in the form of `tools.benchmark --json`, replaced at every result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: What became of a stage.
DONE, FAILED, STOPPED, NOT_RUN = "done", "failed", "stopped at its limit", "not run"


def read(path: Path) -> dict[str, Any]:
    """Return what a stage has written so far; nothing if it ended before it wrote."""
    return dict(json.loads(path.read_text())) if path.exists() else {}
