"""Everything that learns, and the equations that it learns by.

`build` makes a method from a recipe; `load_encoder` loads a trained encoder from a file or a run. README.md in this
folder is the map.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from models.distributed import world
from models.method import Method
from models.methods.recipes import Recipe
from models.methods.recipes import recipe as resolve
from models.methods.registry import REGISTRY
from models.networks.backbone import Backbone
from models.networks.backbones import VIT_FACTS, build_backbone
from models.networks.norm import SplitBatchNorm2d
from models.networks.sync_norm import SyncBatchNorm2d
from models.storage.load_encoder import FrozenEncoder, load_encoder
from models.training.config import Training
from pipelines.plan.global_batch import check_global_batch

__all__ = ["FrozenEncoder", "Method", "backbone_of", "build", "load_encoder", "resolve"]


def build(method: str, recipe: str | Recipe = "cifar10", **overrides: Any) -> Method:
    """Return a freshly initialised method.

    Args:
        method: the method's name, as in `REGISTRY`.
        recipe: the name of a data set in the method's recipe table, or a resolved recipe.
        overrides: fields of the recipe with other values, e.g. backbone="resnet18", width=16.

    Raises:
        ValueError: an unknown name or field, or an illegal value.
    """
    row = recipe if isinstance(recipe, Recipe) else resolve(method, recipe, **overrides)
    return REGISTRY[row.method].make(backbone_of(row.training), row.settings)


def backbone_of(training: Training) -> Backbone:
    """Return the recipe's network, with batch statistics over groups of the *global* batch for any number of processes.

    Raises:
        ValueError: the groups do not divide over the processes.
    """
    _, processes = world()
    check_global_batch(training.batch_size, processes=processes, norm_groups=training.bn_splits)
    splits = max(1, training.bn_splits // processes)
    # Split batch norms even for one group, because they keep the statistics of joint views apart (`forward_views`).
    norm = SyncBatchNorm2d if training.sync_bn and processes > 1 else partial(SplitBatchNorm2d, splits=splits)
    return build_backbone(
        training.backbone,
        training.width,
        training.stem,
        training.zero_init_residual,
        norm,
        training.image_size,
        default_conv1=training.default_conv1,
        **{name: getattr(training, name) for name in VIT_FACTS},
    )
