"""The part of a recipe that every method needs: network, optimizer, schedule, batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.networks.backbones import NAMES, STEMS
from models.networks.vit import INITIALISATIONS
from models.options import check_options, current_names, option
from models.training.optim import NAMES as OPTIMIZERS
from pipelines.plan.global_batch import check_global_batch


@dataclass(frozen=True)
class Training:
    """The options of a recipe that are the same for every method."""

    backbone: str = option("resnet18", "network", choices=NAMES)
    width: int = option(64, "channels of the network's first stage; 64 is the published network", at_least=1)
    stem: str = option(
        "small",
        "first layers of the network (imagenet: 7x7 and pool; small: 3x3; small_pool: 3x3 and pool)",
        choices=STEMS,
    )
    zero_init_residual: bool = option(False, "last batch-norm gain of each residual block initialised at 0")
    default_conv1: bool = option(
        False, "torch's default initialisation of the first convolution, instead of He's as for the others"
    )
    heads: int = option(6, "attention heads of a ViT", at_least=1)
    qkv_bias: bool = option(True, "biases of a ViT's queries, keys and values")
    final_norm: bool = option(True, "layer norm after the last block of a ViT")
    norm_epsilon: float = option(1e-6, "epsilon of a ViT's layer norms", above=0, at_most=0.1)
    initialisation: str = option(
        "timm",
        "initial values of a ViT (timm: truncated normal, deviation 0.02; torch: default linear layers, tokens of "
        "deviation 1 / sqrt(width))",
        choices=INITIALISATIONS,
    )
    bn_splits: int = option(1, "groups of a global batch, each with its own batch statistics", at_least=1)
    sync_bn: bool = option(False, "batch statistics of the backbone over all processes; not with --bn-splits")
    image_size: int = option(32, "side of the evaluation views, in pixels", at_least=1)
    crop_ratio: float = option(1.0, "share of the shorter side that evaluation views show", formerly="image_keep")
    mean: tuple[float, ...] = option(
        (),
        "means of the channels by which images are normalised, from 0 to 1 (usually those of the training images)",
        at_least=0,
        at_most=1,
        metavar="R,G,B",
    )
    std: tuple[float, ...] = option(
        (),
        "standard deviations of the channels by which images are normalised, from 0.01 to 1 (usually those of the "
        "training images)",
        at_least=0.01,
        at_most=1,
        metavar="R,G,B",
    )
    epochs: int = option(200, "passes over the training images", at_least=1)
    batch_size: int = option(256, "images of an optimizer step, over all processes", at_least=1)
    fill_last_batch: bool = option(
        False, "training on the last images of an epoch, in a batch filled up with its first ones; otherwise left out"
    )
    optimizer: str = option("sgd", "optimizer", choices=OPTIMIZERS)
    lr: float = option(0.06, "peak learning rate, whatever the batch size", above=0)
    momentum: float = option(0.9, "momentum of SGD and LARS; AdamW takes 0.9 and 0.999", at_least=0)
    weight_decay: float = option(5e-4, "weight decay of the optimizer", at_least=0)
    decay_norm_and_bias: bool = option(
        True, "weight decay (and LARS scaling) of norm gains and biases too", formerly="decay_vectors"
    )
    warmup_epochs: float = option(0.0, "epochs of linear warm-up before the cosine", at_least=0)
    lr_per_epoch: bool = option(False, "learning-rate changes once an epoch instead of at every step")
    clip_norm: float = option(0.0, "largest norm of the gradient; 0 for no clipping", at_least=0)

    def __post_init__(self) -> None:
        check_options(self)
        if len(self.mean) not in (0, 3) or len(self.mean) != len(self.std):
            raise ValueError(
                f"--mean has {len(self.mean)} and --std {len(self.std)} numbers; give three for each: R,G,B"
            )
        if self.sync_bn and self.bn_splits > 1:
            raise ValueError(f"sync_bn and bn_splits {self.bn_splits} exclude each other; take one of them")
        check_global_batch(self.batch_size, norm_groups=self.bn_splits)


def with_current_names(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe in an old run's file under the current names of the fields."""
    return current_names(recipe, Training)
