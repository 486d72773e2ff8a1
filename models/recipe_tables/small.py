"""What the baselines' recipes share for data that their authors did not train on.

SGD with the rates of MSVQ's and ReSSL's small-data recipes (lr 0.06 for a batch of 256, weight decay 5e-4, 5 epochs of
warm-up, 200 epochs), so that methods differ only in how they learn. A baseline's own table adds its heads and momenta,
from its paper.
"""

from __future__ import annotations

from models.recipe_tables import unpublished
from models.recipe_tables.sources import Row, ours

CIFAR: Row = {
    "backbone": ours("resnet18"),
    "width": ours(64),
    "stem": ours("small"),
    "sync_bn": ours(True),
    "image_size": ours(32),
    "crop_ratio": ours(1.0),
    "epochs": ours(200),
    "batch_size": ours(256),
    "optimizer": ours("sgd"),
    "lr": ours(0.06),
    "momentum": ours(0.9),
    "weight_decay": ours(5e-4),
    "decay_norm_and_bias": ours(True),
    "warmup_epochs": ours(5.0),
    "lr_per_epoch": ours(False),
    "crop_size": ours(32),
}
MEDIUM: Row = {**CIFAR, "stem": ours("small_pool"), "image_size": ours(64), "crop_size": ours(64)}
DIGITS: Row = {**CIFAR, **unpublished.DIGITS, "solarize": ours((0.0,))}
