"""Every hyper-parameter of every (method, data set), each with where it comes from.

A row is a `Training` (what any method needs) and the method's own `Settings`. Sources: "paper" is readable text of the
publication, "code" the authors' released code, "sibling" other code of the same group, "ours" a choice of this project
where nothing was published. `python train.py --method clim --recipe cifar10 --help` shows the values; any of them can
be overridden on the command line, and what was used lands in the run's config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from models import clim
from models.options import option


@dataclass(frozen=True)
class Training:
    """What every method's training needs."""

    backbone: str = option("resnet18", "network: resnet18, resnet34 or resnet50")
    width: int = option(64, "channels of the first stage (64 is the published network)")
    stem: str = option("small", "first layers: imagenet (7x7, pool), small (3x3) or small_pool (3x3, pool)")
    bn_splits: int = option(
        1, "groups of a global batch with batch statistics of their own; MoCo's shuffling needs several"
    )
    image_size: int = option(32, "side of the evaluation views, in pixels")
    image_keep: float = option(1.0, "share of the shorter side that evaluation views show")
    epochs: int = option(200, "passes over the data")
    batch_size: int = option(256, "images of a step, over all processes")
    optimizer: str = option("sgd", "sgd, lars or adamw")
    lr: float = option(0.06, "peak learning rate, for the whole batch")
    momentum: float = option(0.9, "of the optimizer")
    weight_decay: float = option(5e-4, "of the optimizer")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up, before the cosine")
    lr_per_epoch: bool = option(False, "change the learning rate once an epoch instead of every step")
    clip_norm: float = option(0.0, "largest norm of the gradient; 0 does not clip")


class Sourced(NamedTuple):
    """A value and where it comes from."""

    value: Any
    source: str


def code(value: Any) -> Sourced:
    return Sourced(value, "code")


def sibling(value: Any) -> Sourced:
    return Sourced(value, "sibling")


def ours(value: Any) -> Sourced:
    return Sourced(value, "ours")


class Recipe(NamedTuple):
    """The resolved row of a method and a data set; `sources` names the origin of every value."""

    method: str
    name: str
    training: Training
    settings: Any
    sources: Mapping[str, str]


SETTINGS: dict[str, type] = {"clim": clim.Settings}

# CLIM on ImageNet: the released snapshot's values; it does not state the paper's k, m and alpha.
_CLIM_IMAGENET = {
    "backbone": code("resnet50"), "width": code(64), "stem": code("imagenet"), "bn_splits": code(8),
    "image_size": code(224), "image_keep": sibling(224 / 256),
    "epochs": code(200), "batch_size": code(256), "optimizer": code("sgd"), "lr": code(0.03), "momentum": code(0.9),
    "weight_decay": code(1e-4), "warmup_epochs": code(0.0), "lr_per_epoch": code(True), "clip_norm": code(0.0),
    "resolutions": code((224, 160)), "crop_scale": code(0.2), "flip": code(0.5), "dim": code(128), "temperature": code(0.2),
    "queue_size": code(65536), "ema": code(0.999), "rule": ours("paper"), "neighbors": ours(10), "clusters": code(1000),
    "kmeans_iterations": code(30), "whiten": code(128), "refresh_epochs": code(10), "start_epoch": code(0),
    "mix_probability": code(0.8), "mix_alpha": code(1.0),
}  # fmt: skip

# CLIM on small images: nothing is published. The trunk's settings are those of the small-data recipes of MSVQ and ReSSL.
_CLIM_SMALL = _CLIM_IMAGENET | {
    "backbone": ours("resnet18"), "stem": ours("small"), "image_size": ours(32), "image_keep": ours(1.0),
    "lr": ours(0.06), "weight_decay": ours(5e-4), "warmup_epochs": ours(5.0), "lr_per_epoch": ours(False),
    "resolutions": ours((32, 24)), "queue_size": ours(4096), "ema": ours(0.99), "clusters": ours(100),
    "start_epoch": sibling(10),
}  # fmt: skip
_CLIM_MEDIUM = _CLIM_SMALL | {
    "stem": ours("small_pool"), "image_size": ours(64), "resolutions": ours((64, 48)), "queue_size": ours(16384),
    "ema": ours(0.996),
}  # fmt: skip
_CLIM_PHOTOS = _CLIM_SMALL | {
    "stem": ours("imagenet"), "image_size": ours(128), "image_keep": ours(128 / 144), "resolutions": ours((128, 96)),
    "queue_size": ours(4096), "ema": ours(0.99),
}  # fmt: skip

TABLE: dict[tuple[str, str], Mapping[str, Sourced]] = {
    ("clim", "imagenet"): _CLIM_IMAGENET,
    ("clim", "cifar10"): _CLIM_SMALL,
    ("clim", "cifar100"): _CLIM_SMALL | {"clusters": ours(300)},
    ("clim", "stl10"): _CLIM_MEDIUM,
    ("clim", "tiny_imagenet"): _CLIM_MEDIUM | {"clusters": ours(500)},
    ("clim", "imagenette"): _CLIM_PHOTOS | {"epochs": ours(400)},
    ("clim", "photos"): _CLIM_PHOTOS,
    # 1,437 images of 8 x 8 pixels: a narrow network, mirrored digits are other signs, and few images to cluster.
    ("clim", "digits"): _CLIM_SMALL | {
        "width": ours(16), "image_size": ours(16), "resolutions": ours((16, 12)), "flip": ours(0.0), "crop_scale": ours(0.5),
        "batch_size": ours(128), "epochs": ours(60), "queue_size": ours(1024), "clusters": ours(30), "neighbors": ours(5),
        "refresh_epochs": ours(5), "lr": ours(0.06), "warmup_epochs": ours(2.0),
    },
}  # fmt: skip


def recipe(method: str, name: str, **overrides: Any) -> Recipe:
    """The row for a method and a data set, with overridden values.

    Raises:
        ValueError: there is no such method or recipe, a field is unknown, or a value does not make sense.
    """
    if method not in SETTINGS:
        raise ValueError(f"unknown method '{method}'; take one of {', '.join(sorted(SETTINGS))}")
    row = TABLE.get((method, name))
    if row is None:
        raise ValueError(f"method {method} has no recipe '{name}'; take one of {', '.join(names(method))}")
    known = {item.name for cls in (Training, SETTINGS[method]) for item in fields(cls)}
    for unknown in overrides.keys() - known:
        raise ValueError(f"recipe {method}/{name} has no field '{unknown}'; its fields are {', '.join(sorted(known))}")
    sources = {field: entry.source for field, entry in row.items()} | dict.fromkeys(overrides, "command line")
    values = {field: entry.value for field, entry in row.items()} | overrides
    training, settings = (
        cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})
        for cls in (Training, SETTINGS[method])
    )
    return Recipe(method, name, check(training), settings, sources)


def names(method: str) -> list[str]:
    """The data sets that a method has a recipe for."""
    return sorted(name for owner, name in TABLE if owner == method)


def recipe_for(method: str, source: str, median_side: float) -> str:
    """The recipe whose name the data set's source carries; else the one for images of that size."""
    plain = "".join(letter for letter in source.lower() if letter.isalnum())
    matching = [name for name in names(method) if name.replace("_", "") in plain]
    if matching:
        return max(matching, key=len)
    return "cifar10" if median_side <= 40 else "tiny_imagenet" if median_side <= 80 else "photos"


def check(training: Training) -> Training:
    """The same settings, if they make sense.

    Raises:
        ValueError: naming the field, its value and what it may be.
    """
    for field in ("width", "bn_splits", "image_size", "epochs", "batch_size"):
        if getattr(training, field) < 1:
            raise ValueError(f"{field} is {getattr(training, field)}; give at least 1")
    for field in ("weight_decay", "momentum", "warmup_epochs", "clip_norm"):
        if getattr(training, field) < 0:
            raise ValueError(f"{field} is {getattr(training, field)}; give 0 or more")
    if training.lr <= 0:
        raise ValueError(f"lr is {training.lr}; give a number above 0")
    if training.batch_size % training.bn_splits:
        raise ValueError(
            f"batch size {training.batch_size} does not split into {training.bn_splits} groups (bn_splits)"
        )
    return training
