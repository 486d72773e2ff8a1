"""What every method's training needs, whatever the method: network, optimizer, schedule, batch."""

from __future__ import annotations

from dataclasses import dataclass

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
