"""Runs of a narrow ResNet-18 with as little in them as an encoder is read from; quicker than `run_folders`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from models.networks.backbones import build_backbone
from models.storage.checkpoint import write_manifest

RECIPE = {"backbone": "resnet18", "width": 4, "stem": "small", "image_size": 16, "crop_ratio": 0.875, "lr": 0.1}


def backbone(seed: int = 0, **changes: object) -> nn.Module:
    torch.manual_seed(seed)
    return build_backbone(**({"name": "resnet18", "width": 4, "stem": "small"} | changes))  # type: ignore[arg-type]


def prefixed(network: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value.clone() for key, value in network.state_dict().items()}


def write_checkpoint(run: Path, step: int, prefix: str = "student.backbone.", seed: int = 0) -> Path:
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    weights = prefixed(backbone(seed), prefix) | prefixed(backbone(seed + 100), "teacher.network.backbone.")
    save_file(weights | {"queue.rows": torch.zeros(2, 2)}, folder / "model.safetensors")
    save_file({}, folder / "optimizer.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": step, "optimizer": {"state": {}, "param_groups": []}}))
    write_manifest(folder)
    return folder


def write_run(run: Path, steps: tuple[int, ...] = (5, 12)) -> Path:
    run.mkdir()
    data = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    (run / "config.json").write_text(json.dumps({"method": "clim", "recipe": RECIPE, "data": data}))
    for step in steps:
        write_checkpoint(run, step, seed=step)
    return run
