"""MNCL's recipes (one configuration is published, CIFAR-10 enlarged to 224 pixels; arXiv 2306.15930).

`cifar10_224` repeats the published code, in which the local loss trains nothing. The other rows are this project's: the
local loss of the paper's figure, native resolution, and temperatures from the ranges that the paper suggests.
"""

from __future__ import annotations

from models.recipe_tables import unpublished
from models.recipe_tables.sources import Row, code, inferred, ours
from models.recipe_tables.trunks import imagenet_statistics

_RELEASED: Row = {
    "backbone": code("resnet18"),
    "width": code(64),
    "stem": code("imagenet"),
    "zero_init_residual": code(True),
    "sync_bn": code(True),
    "image_size": code(224),
    "crop_ratio": code(224 / 256),
    **imagenet_statistics(code),
    "epochs": code(200),
    "batch_size": code(256),
    "fill_last_batch": code(True),
    "optimizer": code("sgd"),
    "lr": code(0.1),
    "momentum": code(0.9),
    "weight_decay": code(1e-4),
    "decay_norm_and_bias": code(True),
    "warmup_epochs": code(0.0),
    "lr_per_epoch": code(False),
    "clip_norm": code(1.0),
    "crop_size": code(224),
    "crop_scale": code(0.2),
    "flip": code(0.5),
    "jitter": code((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": code((0.8,)),
    "grayscale": code(0.2),
    "blur": code((0.5,)),
    "solarize": code((0.0,)),
    "permute": code(0.0),
    "mode": code("released"),
    "hidden": code(2048),
    "dim": code(2048),
    "predictor_hidden": code(512),
    "global_temperature": code(1.0),
    "local_temperature": code(1.0),
    "global_weight": code(6.0),
    "local_weight": code(1.0),
    "queue_size": code(16384),
    "ema": code(0.99),
    "patch_statistics": code(True),
    "random_gains": code(True),
}
_SMALL: Row = {
    **_RELEASED,
    **unpublished.STATISTICS,
    "stem": inferred("small"),
    "image_size": inferred(32),
    "crop_ratio": ours(1.0),
    "fill_last_batch": ours(False),
    "lr": inferred(0.06),
    "weight_decay": inferred(5e-4),
    "warmup_epochs": ours(5.0),
    "crop_size": inferred(32),
    "mode": inferred("figure"),
    "global_temperature": inferred(0.2),
    "local_temperature": inferred(0.5),
    "queue_size": inferred(4096),
    "random_gains": ours(False),
}
_MEDIUM: Row = {
    **_SMALL,
    "stem": ours("small_pool"),
    "image_size": inferred(64),
    "crop_size": inferred(64),
    "queue_size": inferred(16384),
    "ema": inferred(0.996),
}
_DIGITS: Row = {
    **_SMALL,
    **unpublished.DIGITS,
    "hidden": ours(256),
    "dim": ours(256),
    "predictor_hidden": ours(64),
    "queue_size": ours(1024),
}

ROWS: dict[str, Row] = {
    "photos": {**_SMALL, **unpublished.PHOTOS},
    "cifar10": _SMALL,
    "cifar10_224": _RELEASED,
    "cifar100": _SMALL,
    "stl10": {**_MEDIUM, "image_size": ours(96)},
    "tiny_imagenet": _MEDIUM,
    "digits": _DIGITS,
}
