"""Whether two runs are equal bit for bit: their last checkpoints, and every row that they logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from models.storage import checkpoint

TIMINGS = ("samples_per_s", "wait_share", "first_step_s")  # fields of a row that differ between any two runs


def differences(first_run: Path, second_run: Path) -> list[str]:
    """Return one line for each tensor of the last checkpoint, and each row of metrics.jsonl, that differs."""
    first, second = (checkpoint.newest(run / "checkpoints")[0] for run in (first_run, second_run))
    if first is None or second is None or first.state["step"] != second.state["step"]:
        return ["the last checkpoints are of different steps, or one is missing"]
    found: list[str] = []
    for name in ("model", "optimizer"):
        ours, theirs = getattr(first, name), getattr(second, name)
        found += [f"{name}: {key} is in one of them only" for key in ours.keys() ^ theirs.keys()]
        found += [f"{name}: {key}" for key in ours.keys() & theirs.keys() if not torch.equal(ours[key], theirs[key])]
    pools = [None if one.pairing is None else one.pairing.pool.tobytes() for one in (first, second)]
    if pools[0] != pools[1]:
        found.append("partners")
    rows = [rows_without_timings(run) for run in (first_run, second_run)]
    if len(rows[0]) != len(rows[1]):
        found.append(f"{len(rows[0])} and {len(rows[1])} rows of metrics.jsonl")
    found += [f"row {n}: {a} and {b}" for n, (a, b) in enumerate(zip(*rows, strict=False)) if a != b]
    return found


def rows_without_timings(run: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without the fields that depend on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]
