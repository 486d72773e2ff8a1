"""Rows that the recipes of several methods share: trunk, optimizer, strong views, head, queue and teacher.

Small images: MSVQ's code. Its authors also ran ReSSL, MoCo v2, SimCLR, BYOL and NNCLR with it
(Benchmark-Methods-For-MNN), and CGH, which published no recipe for small data, inherits it. ImageNet: ReSSL's code,
which CGH's follows. Each method names its own source for the shared values.
`PHOTOS` and `DIGITS` are this project's changes to the small-data recipe, for data that nothing was published on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models.recipe_tables import unpublished
from models.recipe_tables.sources import Row, Sourced, inferred, ours, sibling, without

Source = Callable[[Any], Sourced]


def small(source: Source) -> Row:
    """Return the row of CIFAR-10 and CIFAR-100."""
    return {
        "backbone": source("resnet18"),
        "width": source(64),
        "stem": source("small"),
        "bn_splits": source(8),
        "image_size": source(32),
        "crop_ratio": source(1.0),
        "epochs": source(200),
        "batch_size": source(256),
        "optimizer": source("sgd"),
        "lr": source(0.06),
        "momentum": source(0.9),
        "weight_decay": source(5e-4),
        "decay_norm_and_bias": source(True),
        "warmup_epochs": source(5.0),
        "lr_per_epoch": source(False),
        **strong_views(source, 32),
        "hidden": source(2048),
        "dim": source(128),
        "queue_size": source(4096),
        "ema": source(0.99),
        "default_conv1": source(True),
    }


def stl10(source: Source) -> Row:
    """Return the row of STL-10: trained at 64 pixels with the max-pool, evaluated at the images' own 96."""
    return {**tiny_imagenet(source), "image_size": source(96)}


def tiny_imagenet(source: Source) -> Row:
    """Return the row of Tiny-ImageNet: 64 pixels, with the max-pool."""
    return {
        **small(source),
        "stem": source("small_pool"),
        "image_size": source(64),
        "crop_size": source(64),
        "queue_size": source(16384),
        "ema": source(0.996),
    }


def beside_msvq(own: Mapping[str, Any], *lacking: str) -> dict[str, Row]:
    """Return the small-data rows of a method that MSVQ's authors ran beside theirs; STL-10 is inferred.

    Args:
        own: the method's own values.
        lacking: fields of the shared rows that the method does not have.
    """

    def completed(row: Callable[[Source], Row], source: Source) -> Row:
        return {**without(row(source), *lacking), **{field: source(value) for field, value in own.items()}}

    cifar = completed(small, sibling)
    return {
        "cifar10": cifar,
        "cifar100": cifar,
        "stl10": completed(stl10, inferred),
        "tiny_imagenet": completed(tiny_imagenet, sibling),
    }


def imagenet(source: Source) -> Row:
    """Return ReSSL's and CGH's row of a ResNet-50; MoCo v2 replaces some of its values."""
    return {
        "backbone": source("resnet50"),
        "width": source(64),
        "stem": source("imagenet"),
        "bn_splits": source(8),
        "image_size": source(224),
        "crop_ratio": source(224 / 256),
        "epochs": source(200),
        "batch_size": source(256),
        "optimizer": source("sgd"),
        "momentum": source(0.9),
        "weight_decay": source(1e-4),
        "ema": source(0.999),
        **imagenet_statistics(source),
        **strong_views(source, 224),
        "lr": source(0.05),
        "decay_norm_and_bias": source(False),
        "warmup_epochs": source(5.0),
        "lr_per_epoch": source(False),
        "hidden": source(4096),
        "dim": source(512),
        "queue_size": source(131072),
    }


def large_batch(source: Source) -> Row:
    """Return what BYOL's and SimCLR's authors have in common on ImageNet: a ResNet-50, LARS, batches of 4096.

    Their bicubic resize is TensorFlow's, which does not antialias where an image shrinks; the one here does.
    """
    return {
        "backbone": source("resnet50"),
        "width": source(64),
        "stem": source("imagenet"),
        "zero_init_residual": source(True),
        "sync_bn": source(True),
        "image_size": source(224),
        "crop_ratio": source(224 / 256),
        "batch_size": source(4096),
        "optimizer": source("lars"),
        "momentum": source(0.9),
        "decay_norm_and_bias": source(False),
        "warmup_epochs": source(10.0),
        "lr_per_epoch": source(False),
        "crop_size": source(224),
        "crop_scale": source(0.08),
        "resize": source("bicubic"),
        "flip": source(0.5),
        "jitter_p": source((0.8,)),
        "grayscale": source(0.2),
    }


def imagenet_statistics(source: Source) -> Row:
    """Return the means and deviations of ImageNet's channels that most code normalises by."""
    return {"mean": source((0.485, 0.456, 0.406)), "std": source((0.229, 0.224, 0.225))}


def strong_views(source: Source, size: int) -> Row:
    """Return MoCo v2's augmentation, at `size` pixels."""
    return {
        "crop_size": source(size),
        "crop_scale": source(0.2),
        "resize": source("bilinear"),
        "flip": source(0.5),
        "jitter": source((0.4, 0.4, 0.4, 0.1)),
        "jitter_p": source((0.8,)),
        "grayscale": source(0.2),
        "blur": source((0.5,)),
    }


PHOTOS: Row = {**unpublished.PHOTOS, "default_conv1": ours(False)}
DIGITS: Row = {
    **unpublished.DIGITS,
    "bn_splits": ours(1),
    "hidden": ours(512),
    "queue_size": ours(1024),
    "default_conv1": ours(False),
}
