"""BYOL's recipes (arXiv 2006.07733).

ImageNet: the presets of the authors' code for 1000 epochs, with the paper's network and batch. Small images: MSVQ's
authors ran BYOL on CIFAR and Tiny-ImageNet (Benchmark-Methods-For-MNN) and published 89.54 % on CIFAR-10; STL-10 is
inferred from Tiny-ImageNet. Photos and digits have the paper's heads and views, and the optimizer of the other
baselines (`small.py`); the paper starts the momentum at 0.996 for 1000 epochs and at 0.99 for 300.
"""

from __future__ import annotations

from models.recipe_tables import small, unpublished
from models.recipe_tables.sources import Row, code, ours, paper
from models.recipe_tables.trunks import beside_msvq, imagenet_statistics, large_batch

_METHOD: Row = {
    "crop_scale": code(0.08),
    "flip": code(0.5),
    "jitter": code((0.4, 0.4, 0.2, 0.1)),
    "jitter_p": code((0.8,)),
    "grayscale": code(0.2),
    "blur": code((1.0, 0.1)),
    "solarize": code((0.0, 0.2)),
    "hidden": code(4096),
    "dim": code(256),
    "ema_rises": code(True),
    "loss_scale": code(1.0),
    "last_bias": code(False),
    "shuffle": code(False),
}
_IMAGENET: Row = {
    **large_batch(code),
    **imagenet_statistics(code),
    **_METHOD,
    "backbone": paper("resnet50"),
    "batch_size": paper(4096),
    "epochs": code(1000),
    "lr": code(3.2),  # 0.2 for a batch of 256
    "weight_decay": code(1.5e-6),
    "blur_sigma": code((0.1, 2.0)),
    "ema": code(0.996),
}


_SMALL = {"ema_rises": False, "loss_scale": 0.5, "last_bias": True, "shuffle": True}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "photos": {**small.CIFAR, **unpublished.PHOTOS, **_METHOD, "ema": paper(0.99)},
    **beside_msvq(_SMALL, "queue_size"),
    "digits": {**_METHOD, **small.DIGITS, "ema": paper(0.99), "hidden": ours(256), "dim": ours(64)},
}
