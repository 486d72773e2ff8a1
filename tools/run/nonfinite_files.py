"""The folder that a run leaves when a step is not finite: written by the run, read by tools.replay.

RUN/nonfinite-step-00000123/
    step.json                     what was not finite, the precision, and this process's image numbers and seeds
    step-process-1.json           the same of each further process
    config.json                   the run's config: method, recipe, seed, data, versions
    before/step-00000122/         a checkpoint of the state before the step: weights, queues, teachers, statistics
    batch-process-0.safetensors   the views of one process, for each of the step's micro-batches
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from models import build
from models.distributed import world
from models.method import Method
from models.methods.recipes import recipe_of_run
from models.storage import checkpoint
from pipelines import Batch


def write_step(
    run: Path,
    step: int,
    reason: str,
    batches: Sequence[Batch],
    method: Method,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    config: Mapping[str, Any],
) -> Path:
    """Write this process's share of the folder, and return the folder.

    Args:
        run: the folder of the run.
        step: the number of the step, counted from 1.
        reason: what is not finite.
        batches: the micro-batches that this process trained on in the step.
        method, optimizer, state: the state before the step.
        config: what config.json holds.

    Raises:
        OSError, SafetensorError: the folder cannot be written.
    """
    folder = run / f"nonfinite-step-{step:08d}"
    rank, processes = world()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{number} {name}": tensor.cpu().clone(memory_format=torch.contiguous_format)
        for number, batch in enumerate(batches)
        for name, tensor in named(batch).items()
    }
    batch_file = folder / f"batch-process-{rank}.safetensors"
    save_file(tensors, batch_file)
    facts = {
        "step": step,
        "reason": reason,
        "processes": processes,
        "steps_per_epoch": method.steps_per_epoch,
        "precision": config["options"]["precision"],
        "images": [batch.index.tolist() for batch in batches],
        "seeds": [batch.seed for batch in batches],
    }
    facts_file = folder / ("step.json" if rank == 0 else f"step-process-{rank}.json")
    facts_file.write_text(json.dumps(facts, indent=2) + "\n")
    shutil.copymode(facts_file, batch_file)  # safetensors creates files that only their owner can read
    if rank == 0:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        checkpoint.save(folder / "before", method, optimizer, state)
    return folder


def read_method(folder: Path, facts: Mapping[str, Any], config: Mapping[str, Any]) -> Method:
    """Return the method in the state before the step.

    Args:
        facts: what step.json holds.
        config: what config.json holds.
    """
    method = build(config["method"], recipe_of_run(config))
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub wants another argument
    saved = checkpoint.load(folder / "before" / f"step-{facts['step'] - 1:08d}")
    method.load_state_dict(saved.model)
    method.begin(facts["step"] - 1, facts["steps_per_epoch"], config["recipe"]["epochs"])
    return method.train()


def read_batches(folder: Path, facts: Mapping[str, Any]) -> list[Batch]:
    """Return the micro-batches of the step, each joined over all processes as one process would have trained on it.

    Sample m of process r of W is sample m W + r of the joined micro-batch.
    """
    files = [load((folder / f"batch-process-{rank}.safetensors").read_bytes()) for rank in range(facts["processes"])]
    batches = []
    for number, seed in enumerate(facts["seeds"]):
        names = [name for name in files[0] if name.startswith(f"{number} ")]
        joined = {name.split(" ", 1)[1]: torch.stack([f[name] for f in files], 1).flatten(0, 1) for name in names}
        batches.append(unnamed(joined, seed))
    return batches


def named(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch by name, including those of its partner."""
    tensors = {f"view {number}": view for number, view in enumerate(batch.views)}
    tensors |= {"index": batch.index, "label": batch.label}
    if batch.partner is not None and batch.box is not None:
        tensors |= {"box": batch.box} | {f"partner {name}": tensor for name, tensor in named(batch.partner).items()}
    return tensors


def unnamed(tensors: Mapping[str, Tensor], seed: int) -> Batch:
    """Return the batch whose tensors `named` returned."""
    partner = {name.removeprefix("partner "): t for name, t in tensors.items() if name.startswith("partner ")}
    views = tuple(tensors[f"view {number}"] for number in range(sum(name.startswith("view ") for name in tensors)))
    other = unnamed(partner, seed) if partner else None
    return Batch(views, tensors["index"], tensors["label"], seed, other, tensors.get("box"))
