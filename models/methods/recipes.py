"""Recipes: every hyper-parameter of a (method, data set), each with where it comes from.

A recipe is a `Training` (what any method needs) and the method's own settings. The values are in `models/tables/`, one
file a method. `python train.py --method clim --recipe cifar10 --help` shows them; any can be overridden on the command
line, and what was used lands in the run's config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from models.methods.registry import REGISTRY, Entry
from models.options import option


@dataclass(frozen=True)
class Training:
    """What every method's training needs."""

    backbone: str = option("resnet18", "network: resnet18, resnet34, resnet50 or vit_small")
    width: int = option(64, "channels of the first stage (64 is the published network)")
    stem: str = option("small", "first layers: imagenet (7x7, pool), small (3x3) or small_pool (3x3, pool)")
    zero_init_residual: bool = option(False, "start the last batch norm of each residual block at 0")
    bn_splits: int = option(1, "groups of a global batch that have batch statistics of their own")
    sync_bn: bool = option(False, "batch statistics of the backbone over all processes; not with bn_splits")
    image_size: int = option(32, "side of the evaluation views, in pixels")
    image_keep: float = option(1.0, "share of the shorter side that evaluation views show")
    epochs: int = option(200, "passes over the data")
    batch_size: int = option(256, "images of a step, over all processes")
    optimizer: str = option("sgd", "sgd, lars or adamw")
    lr: float = option(0.06, "peak learning rate, for the whole batch")
    momentum: float = option(0.9, "of the optimizer")
    weight_decay: float = option(5e-4, "of the optimizer")
    decay_vectors: bool = option(True, "weight decay (and LARS scaling) of norm gains and biases too")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up, before the cosine")
    lr_per_epoch: bool = option(False, "change the learning rate once an epoch instead of every step")
    clip_norm: float = option(0.0, "largest norm of the gradient; 0 does not clip")

    def __post_init__(self) -> None:
        for field in ("width", "bn_splits", "image_size", "epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; give at least 1")
        for field in ("weight_decay", "momentum", "warmup_epochs", "clip_norm"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} is {getattr(self, field)}; give 0 or more")
        if not self.lr > 0:
            raise ValueError(f"lr is {self.lr}; give a number above 0")
        if self.sync_bn and self.bn_splits > 1:
            raise ValueError(f"sync_bn and bn_splits {self.bn_splits} exclude each other; take one of them")
        if self.batch_size % self.bn_splits:
            raise ValueError(f"a batch of {self.batch_size} does not split into {self.bn_splits} groups (bn_splits)")


class Recipe(NamedTuple):
    """The resolved recipe of a method and a data set; `sources` names the origin of every value."""

    method: str
    name: str
    training: Training
    settings: Any
    sources: Mapping[str, str]


def recipe(method: str, name: str, **overrides: Any) -> Recipe:
    """The recipe for a method and a data set, with overridden values.

    Raises:
        ValueError: there is no such method or recipe, a field is unknown, or a value does not make sense.
    """
    entry = _entry(method)
    if name not in entry.rows:
        raise ValueError(
            f"method {method} has no recipe '{name}'; take one of {', '.join(names(method))} with --recipe"
        )
    row = entry.rows[name]
    defaults = {item.name: item.default for cls in (Training, entry.settings) for item in fields(cls)}
    for unknown in (row.keys() | overrides.keys()) - defaults.keys():
        raise ValueError(
            f"recipe {method}/{name} has no field '{unknown}'; its fields are {', '.join(sorted(defaults))}"
        )
    values = defaults | {field: item.value for field, item in row.items()} | overrides
    sources = dict.fromkeys(defaults, "default") | {field: item.source for field, item in row.items()}
    training, settings = (
        cls(**{item.name: values[item.name] for item in fields(cls)}) for cls in (Training, entry.settings)
    )
    if hasattr(settings, "check"):
        settings.check(training)  # what the method's own values must agree on with the training's
    return Recipe(method, name, training, settings, sources | dict.fromkeys(overrides, "command line"))


def names(method: str) -> list[str]:
    """The data sets that a method has a recipe for."""
    return sorted(_entry(method).rows)


def recipe_for(method: str, source: str, median_side: float) -> str:
    """The recipe whose name the data set's source carries; else the one for images of that size."""
    plain = "".join(letter for letter in source.lower() if letter.isalnum())
    matching = [name for name in names(method) if name.replace("_", "") in plain]
    if matching:
        return max(matching, key=len)
    return "cifar10" if median_side <= 40 else "tiny_imagenet" if median_side <= 80 else "photos"


def _entry(method: str) -> Entry:
    if method not in REGISTRY:
        raise ValueError(f"unknown method '{method}'; take one of {', '.join(sorted(REGISTRY))}")
    return REGISTRY[method]
