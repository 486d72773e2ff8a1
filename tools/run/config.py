"""The content of config.json: every value that determines a run, where each value comes from, and the machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from accelerate import Accelerator

from models.evaluation.held_out import HeldOut
from models.methods.recipes import Recipe
from pipelines import Dataset
from tools.run.environment import commit, machine, versions
from tools.run.options import RunOptions


def run_config(
    options: RunOptions, recipe: Recipe, dataset: Dataset, held_out: HeldOut, accelerator: Accelerator
) -> dict[str, Any]:
    """Return what config.json holds."""
    return {
        "method": recipe.method,
        "recipe_name": recipe.name,
        "recipe": recipe.values,
        "sources": dict(recipe.sources),
        "options": asdict(options),
        "data": {
            "path": str(options.data),
            "number": dataset.number,
            "classes": list(dataset.classes),
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "checksum": dataset.checksum,
            "value_range": list(dataset.value_range) if dataset.value_range else None,
        },
        "held_out": held_out.facts,
        "world_size": accelerator.num_processes,
        "device": str(accelerator.device),
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
    }
