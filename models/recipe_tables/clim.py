"""CLIM's recipes: arXiv 2011.02697 and its published code. The paper's own k, m and alpha are not known."""

from __future__ import annotations

from models.recipe_tables import unpublished
from models.recipe_tables.sources import Row, code, ours, sibling, without
from models.recipe_tables.trunks import imagenet_statistics

# ImageNet: the values of the published code.
_IMAGENET: Row = {
    "backbone": code("resnet50"),
    "width": code(64),
    "stem": code("imagenet"),
    "bn_splits": code(8),
    "image_size": code(224),
    "crop_ratio": sibling(224 / 256),
    **imagenet_statistics(code),
    "epochs": code(200),
    "batch_size": code(256),
    "optimizer": code("sgd"),
    "lr": code(0.03),
    "momentum": code(0.9),
    "weight_decay": code(1e-4),
    "warmup_epochs": code(0.0),
    "lr_per_epoch": code(True),
    "resolutions": code((224, 160)),
    "crop_scale": code(0.2),
    "flip": code(0.5),
    "blur": code(0.5),
    "dim": code(128),
    "temperature": code(0.2),
    "queue_size": code(65536),
    "ema": code(0.999),
    "rule": ours("paper"),
    "neighbors": ours(10),
    "clusters": code(1000),
    "kmeans_iterations": code(30),
    "whiten": code(128),
    "refresh_epochs": code(10),
    "start_epoch": code(0),
    "mix_probability": code(0.8),
    "mix_alpha": code(1.0),
}

# Small images: nothing is published. The trunk's settings are those of MSVQ's and ReSSL's small-data recipes.
_SMALL: Row = {
    **_IMAGENET,
    **unpublished.STATISTICS,
    "backbone": ours("resnet18"),
    "stem": ours("small"),
    "image_size": ours(32),
    "crop_ratio": ours(1.0),
    "lr": ours(0.06),
    "weight_decay": ours(5e-4),
    "warmup_epochs": ours(5.0),
    "lr_per_epoch": ours(False),
    "resolutions": ours((32, 24)),
    "queue_size": ours(4096),
    "ema": ours(0.99),
    "clusters": ours(100),
    "start_epoch": sibling(10),
}
_MEDIUM: Row = {
    **_SMALL,
    "stem": ours("small_pool"),
    "image_size": ours(64),
    "resolutions": ours((64, 48)),
    "queue_size": ours(16384),
    "ema": ours(0.996),
}
_PHOTOS: Row = {
    **_SMALL,
    **without(unpublished.PHOTOS, "crop_size"),  # CLIM's views come at several resolutions
    "resolutions": ours((128, 96)),
}
_DIGITS: Row = {
    **_SMALL,
    **without(unpublished.DIGITS, "crop_size"),
    "bn_splits": ours(1),
    "resolutions": ours((16, 12)),
    "blur": ours(0.0),
    "temperature": ours(0.1),
    "queue_size": ours(1024),
    "neighbors": ours(5),
    "clusters": ours(30),
    "refresh_epochs": ours(5),
}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "imagenette": {**_PHOTOS, "epochs": ours(400)},
    "photos": _PHOTOS,
    "cifar10": _SMALL,
    "cifar100": {**_SMALL, "clusters": ours(300)},
    "stl10": _MEDIUM,
    "tiny_imagenet": {**_MEDIUM, "clusters": ours(500)},
    "digits": _DIGITS,
}
