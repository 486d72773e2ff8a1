"""Folders as train.py leaves them, without training: any network, with statistics that are those of batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.networks.backbone import Backbone
from models.networks.backbones import VIT_FACTS, build_backbone
from models.storage import checkpoint
from pipelines import Dataset


def lively(backbone: Backbone, size: int) -> Backbone:
    """The network with gains, biases and running statistics that all differ: no key can be mixed up."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    backbone.train()
    with torch.no_grad():
        for _ in range(12):
            backbone(torch.randn(4, 3, size, size))
    return backbone.eval()


class Trained(nn.Module):
    """What of a method is saved: the student, and more that is not exported."""

    pairing = None

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.student = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 2)})


def write_checkpoint(folder: Path, network: Backbone, step: int, **state: Any) -> None:
    """A checkpoint of the run, with more facts than its step."""
    method: Any = Trained(network)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    checkpoint.save(folder / "checkpoints", method, optimizer, {"step": step, "samples_seen": 16 * step, **state})


def write_run(folder: Path, data: Dataset, step: int = 12, **architecture: Any) -> tuple[Path, Backbone]:
    """A run with one checkpoint; `architecture` as in a recipe. Returns its folder and its student backbone."""
    recipe = {"backbone": "resnet18", "width": 4, "stem": "small", "image_size": 32, "crop_ratio": 1.0} | architecture
    torch.manual_seed(0)
    vit = {name: recipe[name] for name in VIT_FACTS if name in recipe}
    network = build_backbone(
        recipe["backbone"], recipe["width"], recipe["stem"], image_size=recipe["image_size"], **vit
    )
    network = lively(network, recipe["image_size"])
    write_checkpoint(folder, network, step)
    config = {
        "method": "clim", "recipe_name": "cifar10", "recipe": recipe | {"lr": 0.1}, "sources": {"lr": "paper"},
        "options": {"seed": 3}, "world_size": 1, "versions": {"torch": torch.__version__}, "machine": {"cpu": "a CPU"},
        "data": {
            "path": str(data.path), "number": data.number, "classes": list(data.classes), "checksum": data.checksum,
            "mean": list(data.mean), "std": list(data.std),
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rows = [{"step": n, "samples_seen": 16 * n, "loss": 7.0 - n / 10, "samples_per_s": 100.0 + n} for n in (4, 8, step)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, network


def write_result(run: Path, name: str, protocol: str, step: int = 12, data: str = "test", **values: Any) -> None:
    """An eval-NAME.json of the run."""
    images = {"number": 12, "path": f"/somewhere/{data}.beton"}
    found = {"protocol": {"id": protocol}, **values, "classes": 3, "step": step, "seed": 0, "val_data": images}
    (run / f"eval-{name}.json").write_text(json.dumps(found))


def write_measured_run(folder: Path, data: Dataset) -> Path:
    """A run with results: one of the weights in its newest checkpoint, and one of an earlier step."""
    write_run(folder, data)
    interval = {"kind": "95 %", "top1": [40.0, 61.5]}
    write_result(folder, "knn", "knn-k20-t0.1-cosine-student", top1=50.5, top5=90.25, interval=interval)
    write_result(folder, "linear", "linear-cached", step=4, top1=40.0)
    return folder


def files(folder: Path) -> list[str]:
    """The names in a folder, which need not exist."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
