"""The student backbone of a run or of a weights file, with the facts that evaluation needs about its images."""

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
from models.networks.backbones import VIT_FACTS, build_backbone
from models.storage import checkpoint
from models.storage.state_dicts import backbone_weights, guessed, misfit, unsaid
from models.storage.validate_metadata import check_metadata
from models.storage.weights_file import read_weights
from models.training.config import with_current_names

_ARCHITECTURE = ("backbone", "width", "stem", "image_size")


class EncoderError(ValueError):
    """The run or the weights cannot be used; the message is one line."""


@dataclass(frozen=True)
class Encoder:
    """A backbone and its origin.

    Attributes:
        architecture: the arguments of `build_backbone` that made it.
        image_size, crop_ratio: side of evaluation views in pixels, and the share of the shorter side that they show.
        mean, std: of the training images' channels, on the scale 0 to 1; None where they are unknown.
        step, samples_seen: of the checkpoint, or None.
        source: the checkpoint or file.
        notes: lines for the user, such as checkpoints that were skipped.
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
        """Return the same network with fresh weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_backbone(**self.architecture)


class RawPixels(nn.Module):
    """Pixels as features: the view, averaged down to at most `side` pixels, as one vector."""

    def __init__(self, side: int = 32) -> None:
        super().__init__()
        self.side = side

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.shape[-1] > self.side:
            images_BCHW = F.adaptive_avg_pool2d(images_BCHW, self.side)
        return images_BCHW.flatten(1)


def from_run(run: Path, which: str = "newest") -> Encoder:
    """Return the student backbone of a run's newest valid checkpoint, or of its "best" one by the kNN monitor.

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
    """Return the backbone in a file of weights with torchvision's or timm's keys, or with those of a checkpoint.

    Facts that the file does not hold (backbone, width, stem, image_size, mean, std) are taken from the arguments and
    from the shapes of the weights. `weights_file.py` lists the kinds of files.

    Raises:
        EncoderError: there is no such file, it cannot be read, or it holds no backbone.
    """
    arguments = {"stem": stem, "image_size": image_size, "mean": mean, "std": std}
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        check_metadata(given)
        weights, facts = read_weights(path)
    except ValueError as error:
        raise EncoderError(str(error)) from None
    return _assemble(weights, guessed(backbone_weights(weights)) | with_current_names(facts) | given, path, ())


def _assemble(weights: dict[str, Tensor], facts: dict[str, Any], source: Path, notes: tuple[str, ...]) -> Encoder:
    """Return the encoder with these weights and facts."""
    if missing := [name for name in _ARCHITECTURE if name not in facts]:
        raise EncoderError(f"{source}: {unsaid(missing, weights)}")
    name, backbone_state = facts["backbone"], backbone_weights(weights)
    backbone = None
    try:
        check_metadata(facts)
        architecture = {"name": name, **{fact: facts[fact] for fact in _ARCHITECTURE[1:]}}
        if str(name).startswith(
            "vit"
        ):  # files of earlier versions do not hold these facts: then the defaults are right
            architecture |= {fact: facts[fact] for fact in VIT_FACTS if fact in facts}
        with torch.device("meta"):  # allocates no memory and draws no random numbers for untrusted facts
            backbone = build_backbone(**architecture)
        backbone.load_state_dict({key: _owned(value) for key, value in backbone_state.items()}, assign=True)
    except (ValueError, TypeError, RuntimeError) as error:
        why = (misfit(backbone, backbone_state) if backbone else "") or str(error).splitlines()[0]
        shown = reprlib.repr(name).strip("'")
        raise EncoderError(f"{source} does not hold the backbone {shown} ({why})") from None
    mean, std = (tuple(facts[fact]) if fact in facts else None for fact in ("mean", "std"))
    crop_ratio, step, seen = float(facts.get("crop_ratio", 1.0)), facts.get("step"), facts.get("samples_seen")
    return Encoder(backbone, architecture, facts["image_size"], crop_ratio, mean, std, step, source, notes, seen)


def _owned(value: Tensor) -> Tensor:
    """Return the weights in float32, in memory of their own."""
    return value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True).contiguous()
