"""The evaluations of a sweep: which ones, and whether a result is there already.

By default every method is measured in the same way, beside an untrained network and raw pixels. With `--published` each
is measured as its authors' tables were: kNN with 200 neighbours at temperature 0.1, and their linear probe on random
crops, of which the last epoch is the result and the best epoch on the test set stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Options of eval.py by the name of the protocol.
USUAL = {"knn": ["--baselines"], "linear": ["--baselines"]}
PUBLISHED = {
    "knn": ["--k", "200", "--temperature", "0.1"],
    "linear": ["--settings", "published", "--augment", "--best-epoch"],
}
#: What the protocol of a result measured with these options says.
_PUBLISHED_FACTS: dict[str, dict[str, Any]] = {
    "knn": {"k": 200, "temperature": 0.1},
    "linear": {"augment": True, "best_epoch": True},
}


def read(run: Path, name: str) -> dict[str, Any] | None:
    """Return the result of a protocol for a run, or None if there is none."""
    path = run / f"eval-{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def is_done(run: Path, name: str, published: bool, step: int | None) -> bool:
    """Return whether a protocol was measured as it is to be.

    Args:
        step: the step of the newest checkpoint, whose result it must be; None where that is not known.
    """
    found = read(run, name)
    if found is None or (step is not None and found.get("step") not in (None, step)):
        return False
    if published:
        wanted, protocol = _PUBLISHED_FACTS[name], found.get("protocol", {})
        return all(protocol.get(fact) == value for fact, value in wanted.items())
    return len(found.get("baselines", {})) == 2


def is_of(run: Path, name: str, checksums: Mapping[str, str]) -> bool:
    """Return whether a result is of these images.

    Args:
        checksums: of "data" and "val_data".
    """
    found = read(run, name) or {}
    return all(found.get(images, {}).get("checksum") == checksum for images, checksum in checksums.items())


def seconds(run: Path) -> float:
    """Return how long the evaluations of a run took together; 0 if there are none."""
    return sum(float((read(run, name) or {}).get("seconds", 0)) for name in USUAL)
