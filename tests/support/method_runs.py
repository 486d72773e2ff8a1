"""A tiny run of any method: each option of `runs.TINY` is given only to methods that have it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from models.methods.registry import REGISTRY
from tests.support import runs

LAST, FROM = 8, 4  # steps, 3 an epoch: step 4 is inside the second one
NOT_OF_ALL = (
    "image-size", "resolutions", "queue-size", "dim", "neighbors", "clusters", "whiten", "start-epoch",
    "refresh-epochs", "mix-probability", "bn-splits",
)  # fmt: skip
OWN = {
    "clim": {name: runs.TINY[name] for name in NOT_OF_ALL} | {"refresh-epochs": 1},
    "iccl": {"crop-size": 16, "ramp-start": 0.25, "ramp-end": 0.5},
}


def words(method: str, data: runs.Data, run: Path, **changed: Any) -> list[str]:
    """The command line of a run of the method, so small that a step takes milliseconds."""
    known = {item.name.replace("_", "-") for item in fields(REGISTRY[method].settings)}
    own = OWN.get(method, {"crop-size": 16})
    sizes = {"hidden": 16, "dim": 16, "queue-size": 48, "bn-splits": 1, "image-size": 16}
    of_method = {name: value for name, value in sizes.items() if name in known | {"bn-splits", "image-size"}}
    given = dict.fromkeys(NOT_OF_ALL) | of_method | own
    given |= {"method": method, "output": run, "epochs": 4, "sync-bn": False, "max-steps": LAST}
    given |= {name.replace("_", "-"): value for name, value in changed.items()}
    return runs.arguments(data.train, **given)
