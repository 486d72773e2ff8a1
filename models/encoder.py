"""The student backbone of a run or of a weights file, with what evaluation needs to know about its images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from models import checkpoint
from models.backbones import Backbone, build_backbone

PREFIXES = ("student.backbone.", "backbone.", "")  # where a state dict may hold the student's backbone


class EncoderError(ValueError):
    """The run or the weights cannot be used; the message is one line."""


@dataclass(frozen=True)
class Encoder:
    """A backbone and where it comes from.

    Attributes:
        architecture: the arguments of `build_backbone` that made it.
        image_size, image_keep: side of evaluation views in pixels, and the share of the shorter side that they show.
        mean, std: of the training images' channels, on the scale 0 to 1; None where nothing says.
        step: of the checkpoint, or None.
        source: the checkpoint or file.
        notes: lines to show, such as checkpoints that were skipped.
    """

    backbone: Backbone
    architecture: dict[str, Any]
    image_size: int
    image_keep: float
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    step: int | None
    source: Path
    notes: tuple[str, ...] = ()

    def untrained(self, seed: int = 0) -> Backbone:
        """The same network with fresh weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_backbone(**self.architecture)


class RawPixels(nn.Module):
    """The pixels themselves as features: the view, averaged down to at most `side` pixels, as one vector."""

    def __init__(self, side: int = 32) -> None:
        super().__init__()
        self.side = side

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.shape[-1] > self.side:
            images_BCHW = F.adaptive_avg_pool2d(images_BCHW, self.side)
        return images_BCHW.flatten(1)


def from_run(run: Path, which: str = "newest") -> Encoder:
    """The student backbone of a run's newest valid checkpoint, or of its "best" one by the kNN monitor.

    Raises:
        EncoderError: no run, no checkpoint, or one that does not fit the run's configuration.
    """
    config_path = run / "config.json"
    try:
        config = json.loads(config_path.read_text())
        recipe, data = config["recipe"], config["data"]
    except FileNotFoundError:
        raise EncoderError(f"{run} is no run of train.py: it has no config.json") from None
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{config_path} cannot be read ({type(error).__name__}: {error})") from None
    if which == "best":
        found, notes = checkpoint.best(run / "checkpoints"), ["none was written where kNN was measured"]
    else:
        found, notes = checkpoint.newest(run / "checkpoints")
    if found is None:
        why = f": {notes[0]}" if notes else ""
        raise EncoderError(f"{run / 'checkpoints'} holds no checkpoint that can be read{why}")
    facts = {**recipe, "mean": data["mean"], "std": data["std"], "step": found.state["step"]}
    return _assemble(found.model, facts, found.path, tuple(notes) if which == "newest" else ())


def from_weights(path: Path, stem: str | None = None, image_size: int | None = None) -> Encoder:
    """The backbone in a .safetensors file with torchvision's or timm's keys, or with those of a checkpoint.

    What the file's metadata does not say (backbone, width, stem, image_size, mean, std) is taken from the arguments and
    the shapes of the weights.

    Raises:
        EncoderError: no such file, not safetensors, or not a backbone.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{path} cannot be read as safetensors ({error})") from None
    facts |= {"stem": stem} if stem else {}
    facts |= {"image_size": image_size} if image_size else {}
    return _assemble(weights, _guessed(_backbone_part(weights)) | facts, path, ())


def _assemble(weights: dict[str, Tensor], facts: dict[str, Any], source: Path, notes: tuple[str, ...]) -> Encoder:
    try:
        architecture = {name: facts[name] for name in ("backbone", "width", "stem", "image_size")}
    except KeyError as missing:
        raise EncoderError(f"{source}: nothing says the network's {missing}") from None
    architecture["name"] = architecture.pop("backbone")
    try:
        backbone = build_backbone(**architecture)
        backbone.load_state_dict(_backbone_part(weights))
    except (ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise EncoderError(f"{source} does not hold the backbone {architecture['name']} ({first})") from None
    mean, std = (tuple(facts[name]) if name in facts else None for name in ("mean", "std"))
    keep, step = float(facts.get("image_keep", 1.0)), facts.get("step")
    return Encoder(backbone, architecture, facts["image_size"], keep, mean, std, step, source, notes)


def _backbone_part(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of the student's backbone, without their prefix and without a classifier."""
    for prefix in PREFIXES:
        part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if "conv1.weight" in part or "patch_embed.proj.weight" in part:
            return {key: value for key, value in part.items() if not key.startswith(("fc.", "head."))}
    return {}


def _guessed(part: dict[str, Tensor]) -> dict[str, Any]:
    """Architecture as far as the shapes tell it: not a small stem's max-pool, nor the size of a ResNet's images."""
    if "pos_embed" in part and "patch_embed.proj.weight" in part:
        patch = part["patch_embed.proj.weight"].shape[-1]
        side = round((part["pos_embed"].shape[1] - 1) ** 0.5) * patch
        return {
            "backbone": "vit_small",
            "width": part["pos_embed"].shape[2] // 6,
            "stem": "imagenet",
            "image_size": side,
        }
    if "conv1.weight" not in part:
        return {}
    name = (
        "resnet50" if "layer1.0.conv3.weight" in part else "resnet34" if "layer1.2.conv1.weight" in part else "resnet18"
    )
    width, _, kernel, _ = part["conv1.weight"].shape
    return {"backbone": name, "width": width} | ({"stem": "imagenet", "image_size": 224} if kernel == 7 else {})


def _parsed(text: str) -> Any:
    """A metadata value: JSON where it is, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
