"""SimSiam's recipes (arXiv 2011.10566).

ImageNet: the authors' code, whose defaults are the paper's. Small images: the CIFAR-10 experiment of the paper's
appendix D, with the zero-initialised gains of their code. That experiment has batches of 512 and 800 epochs; the rows
have the batches and epochs of the project's other baselines (`small.py`), and its rate for a batch of 256.
"""

from __future__ import annotations

from models.recipe_tables import small, unpublished
from models.recipe_tables.sources import Row, code, ours, paper
from models.recipe_tables.trunks import imagenet_statistics, strong_views

_METHOD: Row = {
    "zero_init_residual": code(True),
    "optimizer": paper("sgd"),
    "lr": paper(0.03),
    "momentum": paper(0.9),
    "weight_decay": paper(5e-4),
    "warmup_epochs": paper(0.0),
    "crop_scale": paper(0.2),
    "flip": paper(0.5),
    "jitter": paper((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": paper((0.0,)),
    "layers": paper(2),
    "hidden": paper(2048),
    "dim": paper(2048),
    "predictor_hidden": paper(512),
}
_MEDIUM: Row = {**small.MEDIUM, **_METHOD, "blur": ours((0.5,)), "layers": ours(3)}
_IMAGENET: Row = {
    "backbone": code("resnet50"),
    "width": code(64),
    "stem": code("imagenet"),
    "zero_init_residual": code(True),
    "sync_bn": code(True),
    "image_size": code(224),
    "crop_ratio": code(224 / 256),
    **imagenet_statistics(code),
    "epochs": code(100),
    "batch_size": code(512),
    "optimizer": code("sgd"),
    "lr": code(0.1),  # 0.05 for a batch of 256
    "momentum": code(0.9),
    "weight_decay": code(1e-4),
    "decay_norm_and_bias": code(True),
    "warmup_epochs": code(0.0),
    "lr_per_epoch": code(True),
    **strong_views(code, 224),
    "blur_sigma": code((0.1, 2.0)),
    "layers": code(3),
    "hidden": code(2048),
    "dim": code(2048),
    "predictor_hidden": code(512),
}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "photos": {**small.CIFAR, **unpublished.PHOTOS, **_METHOD},
    "cifar10": {**small.CIFAR, **_METHOD},
    "cifar100": {**small.CIFAR, **_METHOD},
    "stl10": {**_MEDIUM, "image_size": ours(96)},
    "tiny_imagenet": _MEDIUM,
    "digits": {**_METHOD, **small.DIGITS, "hidden": ours(256), "dim": ours(256), "predictor_hidden": ours(64)},
}
