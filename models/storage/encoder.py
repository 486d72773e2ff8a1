"""The student backbone of a run or of a weights file, with the facts that evaluation needs about its images."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.backbone import Backbone
from models.networks.backbones import VIT_FACTS, VITS, build_backbone
from models.storage import checkpoint
from models.storage.assumptions import assumed
from models.storage.find_network import FoundNetwork, find_network, network_at
from models.storage.state_dicts import guessed, leaves_open, misfit, table_side, unsaid
from models.storage.validate_metadata import check_metadata
from models.storage.weights_file import read_weights
from models.training.config import with_current_names
from pipelines.decoding.value_range import ValueRange
from pipelines.plan.views import View, evaluation

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
        notes: lines for the user: checkpoints that were skipped; of a file, what was taken, left and assumed.
        value_range: the values of the training images' files that were black and white; None = all that their kind of
            pixels has, or unknown.
        resize: the filter that resizes evaluation views, one of `RESIZE`.
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
    resize: str = "area"
    value_range: ValueRange | None = None

    @property
    def view(self) -> View:
        """The evaluation view."""
        return evaluation(self.image_size, self.crop_ratio, self.resize)

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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    facts["value_range"] = config["data"].get("value_range")
    facts |= {name: found.state[name] for name in ("step", "samples_seen") if name in found.state}
    return _assemble(network_at(found.model, "student.backbone.", "backbone."), facts, found.path, tuple(notes))


def from_weights(
    path: Path, network: str | None = None, usual: Mapping[str, Any] = MappingProxyType({}), **given: Any
) -> Encoder:
    """Return the backbone in a file of weights: of this project, or of others (`find_network.py`, `key_layouts.py`).

    Args:
        network: the place of the network in a file that holds several; None takes the one that its authors evaluate.
        usual: facts that count where neither the file nor shapes show them, before convention does.
        given: facts that the file does not hold, or whose values are to be others: stem, image_size, mean, std,
            resize, and of a ViT heads, pool and norm_epsilon. None leaves a fact to the file, to the shapes of its
            weights, and to convention; `notes` of the encoder says what was assumed.

    Raises:
        EncoderError: there is no such file, it cannot be read, or it holds no backbone.
    """
    given = {name: value for name, value in given.items() if value is not None}
    try:
        check_metadata(given)
        weights, own = read_weights(path)
    except ValueError as error:
        raise EncoderError(str(error)) from None
    try:
        found = find_network(weights, network)
    except ValueError as error:
        raise EncoderError(f"{path}: {error}") from None
    if "backbone" in own:  # a file of this project, which says all that is not the default
        return _assemble(found, {**with_current_names(own), **given}, path, ())
    shown = guessed(found.state)
    facts = {
        **shown,
        **{name: usual[name] for name in usual if leaves_open(name, shown)},
        **found.facts,
        **own,
        **given,
    }
    is_vit = str(facts.get("backbone")) in VITS
    if is_vit and "heads" not in facts:
        raise EncoderError(f"{path}: {unsaid(['heads'], weights)}")
    if "backbone" in facts and not is_vit and (of_vit := [name for name in given if name in VIT_FACTS]):
        raise EncoderError(f"{path} holds a {facts['backbone']}, which has no {of_vit[0]}; leave it out")
    encoder = _assemble(found, facts, path, ())
    return replace(encoder, notes=(found.line, assumed(encoder.architecture, facts, {**own, **given})))


def _assemble(found: FoundNetwork, facts: dict[str, Any], source: Path, notes: tuple[str, ...]) -> Encoder:
    """Return the encoder with these weights and facts."""
    if missing := [name for name in _ARCHITECTURE if name not in facts]:
        raise EncoderError(f"{source}: {unsaid(missing, [*found.left, *found.state])}")
    name, backbone = facts["backbone"], None
    try:
        check_metadata(facts)
        if name in VITS and facts["image_size"] % facts.get("patch", 16):
            raise ValueError(
                f"images of {facts['image_size']} px do not divide into patches of {facts.get('patch', 16)} px"
            )
        architecture = {"name": name, **{fact: facts[fact] for fact in _ARCHITECTURE[1:]}}
        if name in VITS:  # files of earlier versions do not hold these facts: then the defaults are right
            architecture |= {fact: facts[fact] for fact in VIT_FACTS if fact in facts}
            architecture["image_size"] = _table_size(found, architecture)
        with torch.device("meta"):  # allocates no memory and draws no random numbers for untrusted facts
            backbone = build_backbone(**architecture)
        backbone.load_state_dict({key: _owned(value) for key, value in found.state.items()}, assign=True)
    except (ValueError, TypeError, RuntimeError) as error:
        why = (misfit(backbone, found.state) if backbone else "") or str(error).splitlines()[0]
        shown = reprlib.repr(name).strip("'")
        raise EncoderError(f"{source} does not hold the backbone {shown} ({why})") from None
    mean, std = (tuple(facts[fact]) if fact in facts else None for fact in ("mean", "std"))
    scale = None if facts.get("value_range") is None else ValueRange(*facts["value_range"])
    return Encoder(
        backbone,
        architecture,
        facts["image_size"],
        float(facts.get("crop_ratio", 1.0)),
        mean,
        std,
        facts.get("step"),
        source,
        notes,
        facts.get("samples_seen"),
        facts.get("resize", "area"),  # files of earlier versions do not name it
        scale,
    )


def _table_size(found: FoundNetwork, architecture: dict[str, Any]) -> int:
    """Return the side of the images that a ViT's position table is for; it is resized for images of other sizes."""
    size: int = architecture["image_size"]
    is_table = "pos_embed" in found.state and found.state["pos_embed"].ndim == 3
    return table_side(found.state) * architecture.get("patch", 16) if is_table else size


def _owned(value: Tensor) -> Tensor:
    """Return the weights in float32, in memory of their own."""
    value = value.detach()
    return value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True).contiguous()
