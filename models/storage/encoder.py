"""The student backbone of a run or of a weights file, with what evaluation needs to know about its images."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.backbone import Backbone
from models.networks.backbones import build_backbone
from models.storage import checkpoint
from models.storage.state_dicts import backbone_part, guessed, misfit, unsaid
from models.storage.validate_metadata import check_claims
from models.storage.weights_file import read_weights
from models.training.config import with_current_names

_ARCHITECTURE = ("backbone", "width", "stem", "image_size")


class EncoderError(ValueError):
    """The run or the weights cannot be used; the message is one line."""


@dataclass(frozen=True)
class Encoder:
    """A backbone and where it comes from.

    Attributes:
        architecture: the arguments of `build_backbone` that made it.
        image_size, crop_ratio: side of evaluation views in pixels, and the share of the shorter side that they show.
        mean, std: of the training images' channels, on the scale 0 to 1; None where nothing says.
        step, samples_seen: of the checkpoint, or None.
        source: the checkpoint or file.
        notes: lines to show, such as checkpoints that were skipped.
    """

    backbone: Backbone
    architecture: dict[str, Any]
    image_size: int
    crop_ratio: float
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    step: int | None
    source: Path
    notes: tuple[str, ...] = ()
    samples_seen: int | None = None

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
        EncoderError: no run, no such checkpoint, or one that does not fit the run's configuration.
    """
    if which not in ("newest", "best"):
        raise EncoderError(f"checkpoint is {which!r}; take newest or best")
    config_path = run / "config.json"
    try:
        config = json.loads(config_path.read_text())
        facts = {**with_current_names(config["recipe"]), "mean": config["data"]["mean"], "std": config["data"]["std"]}
    except FileNotFoundError:
        raise EncoderError(f"{run} is no run of train.py: it has no config.json") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EncoderError(f"{config_path} cannot be read ({type(error).__name__}: {error})") from None
    folder = run / "checkpoints"
    notes: list[str] = []
    if which == "best":
        found = checkpoint.best(folder)
        if found is None:
            raise EncoderError(
                f"{folder} holds no best checkpoint: none was written where kNN was measured; "
                "train.py measures it with --val-data FILE, eval.py knn measures the newest"
            )
    else:
        found, notes = checkpoint.newest(folder)
        if found is None:
            why = f": {notes[0]}" if notes else ""
            raise EncoderError(f"{folder} holds no checkpoint that can be read{why}")
    facts |= {name: found.state[name] for name in ("step", "samples_seen") if name in found.state}
    return _assemble(found.model, facts, found.path, tuple(notes))


def from_weights(
    path: Path,
    stem: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Encoder:
    """The backbone in a file of weights with torchvision's or timm's keys, or with those of a checkpoint.

    What the file does not say of itself (backbone, width, stem, image_size, mean, std) is taken from the arguments and
    the shapes of the weights; `weights_file.py` tells which files are read.

    Raises:
        EncoderError: no such file, not to be read, or not a backbone.
    """
    said = {"stem": stem, "image_size": image_size, "mean": mean, "std": std}
    given = {name: value for name, value in said.items() if value is not None}
    try:
        check_claims(given)
        weights, facts = read_weights(path)
    except ValueError as error:
        raise EncoderError(str(error)) from None
    return _assemble(weights, guessed(backbone_part(weights)) | with_current_names(facts) | given, path, ())


def _assemble(weights: dict[str, Tensor], facts: dict[str, Any], source: Path, notes: tuple[str, ...]) -> Encoder:
    if missing := [name for name in _ARCHITECTURE if name not in facts]:
        raise EncoderError(f"{source}: {unsaid(missing, weights)}")
    name, part = facts["backbone"], backbone_part(weights)
    backbone = None
    try:
        check_claims(facts)
        architecture = {"name": name, **{fact: facts[fact] for fact in _ARCHITECTURE[1:]}}
        with torch.device("meta"):  # no memory is taken on the word of a file, nor random numbers
            backbone = build_backbone(**architecture)
        backbone.load_state_dict({key: _owned(value) for key, value in part.items()}, assign=True)
    except (ValueError, TypeError, RuntimeError) as error:
        why = (misfit(backbone, part) if backbone else "") or str(error).splitlines()[0]
        told = reprlib.repr(name).strip("'")
        raise EncoderError(f"{source} does not hold the backbone {told} ({why})") from None
    mean, std = (tuple(facts[fact]) if fact in facts else None for fact in ("mean", "std"))
    keep, step, seen = float(facts.get("crop_ratio", 1.0)), facts.get("step"), facts.get("samples_seen")
    return Encoder(backbone, architecture, facts["image_size"], keep, mean, std, step, source, notes, seen)


def _owned(value: Tensor) -> Tensor:
    """The weights in float32, in memory of their own."""
    return value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True).contiguous()
