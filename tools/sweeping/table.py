"""A method's row of sweep.json, and the table of all rows on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.evaluation.collapse import effective_rank, feature_spread
from models.evaluation.features import extract
from models.recipe_tables.published_results import RESULTS
from models.storage import checkpoint
from models.storage.encoder import from_run
from pipelines import make_loader, open_dataset
from pipelines.plan.views import evaluation
from tools.sweeping import evaluations
from tools.sweeping.time_left import rows_of, steps_of

_FEATURE_BATCH = 512


def describe(method: str, run: Path, val_data: str) -> dict[str, Any]:
    """Return a method's row of sweep.json, of the newest checkpoint."""
    knn, linear = evaluations.read(run, "knn") or {}, evaluations.read(run, "linear") or {}
    encoder, held_out = from_run(run), open_dataset(val_data)
    view = evaluation(encoder.image_size, encoder.crop_ratio)
    with make_loader(held_out, [view], _FEATURE_BATCH, shuffle=False, drop_last=False) as loader:
        features_ND = extract(encoder.backbone, loader)
    losses = [row["loss"] for row in rows_of(run) if "loss" in row]
    baselines = {
        f"{name}_{short}": found["baselines"][long]["top1"]
        for name, found in (("knn", knn), ("linear", linear))
        for short, long in (("untrained", "untrained network"), ("pixels", "raw pixels"))
        if long in found.get("baselines", {})
    }
    state = newest_state(run)
    row = {
        "method": method,
        "recipe": json.loads((run / "config.json").read_text())["recipe_name"],
        "steps": state["step"],
        "of_steps": steps_of(run),
        "images_seen": state["samples_seen"],
        "seconds": round(state["seconds"], 2),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "knn_protocol": knn["protocol"]["id"],
        "knn": knn["top1"],
        "linear_protocol": linear["protocol"]["id"],
        "linear": linear["top1"],
        **baselines,
        "spread": round(feature_spread(features_ND), 4),
        "rank": round(effective_rank(features_ND), 1),
    }
    return row | compared(row, linear.get("best_epoch"))


def compared(row: dict[str, Any], best_epoch: dict[str, Any] | None) -> dict[str, Any]:
    """Return the best epoch of the probe, the published accuracies and the differences from them, if there are any."""
    found: dict[str, Any] = {}
    if best_epoch:
        found |= {"linear_best_epoch_protocol": best_epoch["protocol"], "linear_best_epoch": best_epoch["top1"]}
    if published := RESULTS.get((row["method"], row["recipe"])):
        measured = {"linear": best_epoch["top1"] if best_epoch else None, "knn": row["knn"]}
        found["published"] = published._asdict()
        found["difference"] = {
            name: round(value - figure, 2)
            for name, value in measured.items()
            if value is not None and (figure := getattr(published, name)) is not None
        }
    return found


def newest_state(run: Path) -> dict[str, Any]:
    """Return the state of a run's newest checkpoint; empty if it has none."""
    found, _ = checkpoint.newest(run / "checkpoints")
    return dict(found.state) if found else {}


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the rows as a table."""
    if "linear_best_epoch" in rows[0]:
        return _show_published(rows, console)
    table = Table(title=f"{rows[0]['knn_protocol']}, {rows[0]['linear_protocol']}")
    for column in ("method", "images seen", "loss", "kNN %", "untrained %", "linear %", "spread", "rank", "seconds"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['images_seen']:,}",
            f"{row['first_loss']:.2f} to {row['last_loss']:.2f}",
            f"{row['knn']:.2f}",
            f"{row['knn_untrained']:.2f}",
            f"{row['linear']:.2f}",
            f"{row['spread']:.2f}",
            f"{row['rank']:.1f}",
            f"{row['seconds']:.0f}",
        )
    console.print(table)
    return None


def _show_published(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="measured as published; difference from the published figure in brackets")
    for column in ("method", "recipe", "steps", "kNN %", "linear, last epoch %", "best epoch %", "probe"):
        table.add_column(column, justify="left" if column in ("method", "recipe", "probe") else "right")
    for row in rows:
        whole = row["steps"] == row["of_steps"]
        table.add_row(
            row["method"],
            row["recipe"],
            f"{row['steps']:,}" if whole else f"{row['steps']:,} of {row['of_steps']:,}",
            beside(row, "knn", row["knn"]),
            f"{row['linear']:.2f}",
            beside(row, "linear", row["linear_best_epoch"]),
            row["linear_protocol"],
        )
    console.print(table)


def beside(row: dict[str, Any], name: str, value: float) -> str:
    """Return a figure with its difference from the published one, if there is one."""
    difference = row.get("difference", {}).get(name)
    return f"{value:.2f}" if difference is None else f"{value:.2f} ({difference:+.2f})"
