"""What every method's training needs, whatever the method: network, optimizer, schedule, batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.networks.backbones import NAMES, STEMS
from models.options import check_options, current_names, option
from pipelines.plan.global_batch import check_global_batch


@dataclass(frozen=True)
class Training:
    """The recipe of a training as far as it is the same for every method."""

    backbone: str = option("resnet18", "the network", choices=NAMES)
    width: int = option(64, "channels of the network's first stage; 64 is the published network", at_least=1)
    stem: str = option(
        "small", "the first layers: imagenet (7x7, pool), small (3x3) or small_pool (3x3, pool)", choices=STEMS
    )
    zero_init_residual: bool = option(False, "start the last batch-norm gain of each residual block at 0")
    bn_splits: int = option(1, "groups of a global batch, each with batch statistics of its own", at_least=1)
    sync_bn: bool = option(False, "share the backbone's batch statistics over all processes; not with --bn-splits")
    image_size: int = option(32, "side of the evaluation views, in pixels", at_least=1)
    crop_ratio: float = option(1.0, "share of the shorter side that evaluation views show", formerly="image_keep")
    epochs: int = option(200, "passes over the training images", at_least=1)
    batch_size: int = option(256, "images of an optimizer step, over all processes", at_least=1)
    optimizer: str = option("sgd", "the optimizer", choices=("sgd", "lars", "adamw"))
    lr: float = option(0.06, "peak learning rate for the whole batch", above=0)
    momentum: float = option(0.9, "momentum of SGD and LARS; AdamW takes 0.9 and 0.999", at_least=0)
    weight_decay: float = option(5e-4, "weight decay of the optimizer", at_least=0)
    decay_norm_and_bias: bool = option(
        True, "apply weight decay (and LARS scaling) to norm gains and biases too", formerly="decay_vectors"
    )
    warmup_epochs: float = option(0.0, "epochs of linear warm-up before the cosine", at_least=0)
    lr_per_epoch: bool = option(False, "change the learning rate once an epoch instead of at every step")
    clip_norm: float = option(0.0, "largest norm of the gradient; 0 does not clip", at_least=0)

    def __post_init__(self) -> None:
        check_options(self)
        if self.sync_bn and self.bn_splits > 1:
            raise ValueError(f"sync_bn and bn_splits {self.bn_splits} exclude each other; take one of them")
        check_global_batch(self.batch_size, norm_groups=self.bn_splits)


def with_current_names(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe in an old run's file, under today's names of the fields."""
    return current_names(recipe, Training)
