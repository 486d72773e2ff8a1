"""The lines that a run prints when it starts: what it trains, where, and for how long."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from models.methods.recipes import Recipe
from pipelines import Dataset
from tools.run.accelerator import why_not_recorded
from tools.run.options import RunOptions
from tools.run.process_group import requested_processes


def banner(
    recipe: Recipe,
    dataset: Dataset,
    encoder: nn.Module,
    steps_per_epoch: int,
    accelerator: Accelerator,
    options: RunOptions,
) -> list[str]:
    """Return the lines of the banner.

    Args:
        encoder: the network whose parameters are counted.
    """
    training, processes = recipe.training, accelerator.num_processes
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    network = f"{training.backbone} (width {training.width}, {parameters / 1e6:.2f} M)"
    length = f"{training.epochs} epochs of {steps_per_epoch} steps, batch {training.batch_size}"
    device = f"{accelerator.device}, {options.precision}, {torch.get_num_threads()} threads"
    lines = [
        f"{recipe.method}, recipe {recipe.name}: {network}, {dataset.number:,} images, {length}",
        f"world size {processes} ({device}), into {options.folder}",
        f"step: {step_form(options, accelerator)}",
    ]
    if processes == 1 and (requested := requested_processes()) > 1:
        lines.append(
            f"warning: {requested} processes were asked for and one was started, as accelerate does on CPUs; "
            f"take torchrun --nproc_per_node {requested} train.py ..."
        )
    return lines


def step_form(options: RunOptions, accelerator: Accelerator) -> str:
    """Return in which form steps run here, and why not in a faster one (`train_step.py` defines the forms)."""
    reason = why_not_recorded(options, accelerator.device, accelerator.num_processes)
    if not reason:
        return "recorded, one CUDA graph for each kind of step"
    if not options.compile:
        return f"plain ({reason})"
    if accelerator.device.type == "cuda":
        return f"compiled, not recorded ({reason})"
    return f"plain, its losses compiled ({reason})"
