"""ICCL's recipes (ImageNet and Imagenette from the published configurations, arXiv 2301.03041).

`uniformity` is the effective lambda: the published code divides the gradient of the configured one (5 on ImageNet, 1 on
Imagenette) by the number of processes, 4 with its launcher. The blur of small images is that of ImageNet's 224 pixels,
scaled to their size; unscaled, it would be seven times as strong at 32 pixels. LARS there excludes parameters by name
and misses the batch norms inside containers; here `decay_norm_and_bias` false excludes all of them. Its LARS warm-up
starts at 1e-4 of the rate, here it starts at 0.
"""

from __future__ import annotations

from models.recipe_tables import unpublished
from models.recipe_tables.sources import Row, Sourced, code, inferred, ours
from models.recipe_tables.trunks import imagenet_statistics


def _scaled_blur(size: int) -> Sourced:
    """Return the range of the blur's deviation, 0.1 to 2 pixels at 224, in pixels of views of another size."""
    return inferred((0.1 * size / 224, 2.0 * size / 224))


_SHARED: Row = {
    **imagenet_statistics(code),
    "width": code(64),
    "zero_init_residual": code(True),
    "sync_bn": code(True),
    "momentum": code(0.9),
    "flip": code(0.5),
    "jitter": code((0.4, 0.4, 0.2, 0.1)),
    "jitter_p": code((0.8, 0.8)),
    "grayscale": code(0.2),
    "blur": code((1.0, 0.1)),
    "blur_sigma": code((0.1, 2.0)),
    "solarize": code((0.0, 0.2)),
    "permute": code(0.8),
    "dim": code(512),
    "ema": code(0.99),
    "student_temperature": code(0.1),
    "teacher_temperature": code(0.07),
    "ramp_start": code(0.5),
    "ramp_end": code(0.6),
}
_IMAGENET: Row = {
    **_SHARED,
    "backbone": code("resnet50"),
    "stem": code("imagenet"),
    "image_size": code(224),
    "crop_ratio": code(224 / 256),
    "epochs": code(300),
    "batch_size": code(2048),
    "optimizer": code("lars"),
    "lr": code(2.4),
    "weight_decay": code(1e-6),
    "decay_norm_and_bias": code(False),
    "warmup_epochs": code(40.0),
    "lr_per_epoch": code(True),
    "crop_size": code(224),
    "crop_scale": code(0.2),
    "variant": code("momentum"),
    "hidden": code(4096),
    "adaptive": code(False),
    "pca": code(0),
    "uniformity": code(1.25),
}
_IMAGENET_VIT: Row = {
    **_IMAGENET,
    "backbone": code("vit_small"),
    "zero_init_residual": ours(False),
    "heads": code(12),
    "qkv_bias": code(False),
    "final_norm": code(False),
    "norm_epsilon": code(1e-5),
    "initialisation": code("torch"),
    "batch_size": code(1024),
    "optimizer": code("adamw"),
    "lr": code(6e-4),
    "weight_decay": code(0.1),
    "decay_norm_and_bias": code(True),
    "freeze_patches": code(True),
}
_IMAGENETTE: Row = {
    **_SHARED,
    "backbone": code("resnet18"),
    "stem": code("imagenet"),
    "image_size": code(128),
    "crop_ratio": code(128 / 160),
    "epochs": code(1000),
    "batch_size": code(256),
    "optimizer": code("lars"),
    "lr": code(2.0),
    "weight_decay": code(1e-6),
    "decay_norm_and_bias": code(False),
    "warmup_epochs": code(10.0),
    "lr_per_epoch": code(False),
    "crop_size": code(128),
    "crop_scale": code(0.08),
    "jitter_p": code((0.8, 1.0)),
    "variant": code("plain"),
    "hidden": code(512),
    "adaptive": code(True),
    "pca": code(512),
    "uniformity": code(0.25),
}

# Small images: nothing is published. Inferred from the paper, with the optimizer of the project's other methods.
_SMALL: Row = {
    **_IMAGENET,
    **unpublished.STATISTICS,
    "backbone": inferred("resnet18"),
    "stem": inferred("small"),
    "image_size": inferred(32),
    "crop_ratio": ours(1.0),
    "epochs": ours(200),
    "batch_size": inferred(256),
    "optimizer": inferred("sgd"),
    "lr": inferred(0.06),
    "weight_decay": inferred(5e-4),
    "decay_norm_and_bias": ours(True),
    "warmup_epochs": inferred(5.0),
    "lr_per_epoch": ours(False),
    "crop_size": inferred(32),
    "blur_sigma": _scaled_blur(32),
    "hidden": inferred(2048),
}
_MEDIUM: Row = {
    **_SMALL,
    "stem": ours("small_pool"),
    "image_size": inferred(64),
    "crop_size": inferred(64),
    "blur_sigma": _scaled_blur(64),
}
_DIGITS: Row = {
    **_SMALL,
    **unpublished.DIGITS,
    "blur": ours((0.0, 0.0)),
    "solarize": ours((0.0, 0.0)),
    "hidden": ours(256),
    "dim": ours(128),
}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "imagenet_vit": _IMAGENET_VIT,
    "imagenette": _IMAGENETTE,
    "photos": {**_SMALL, **unpublished.PHOTOS, "blur_sigma": _scaled_blur(128)},
    "cifar10": _SMALL,
    "cifar100": _SMALL,
    "stl10": {**_MEDIUM, "image_size": ours(96)},
    "tiny_imagenet": _MEDIUM,
    "digits": _DIGITS,
}
