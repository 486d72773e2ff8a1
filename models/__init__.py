"""Everything that learns, and the equations it learns by. `build` makes a method from a recipe."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from models.backbones import Backbone, build_backbone
from models.clim import Clim
from models.distributed import world
from models.method import Method
from models.norm import SplitBatchNorm2d
from models.recipes import Recipe, Training
from models.recipes import recipe as resolve

METHODS: dict[str, type[Method]] = {"clim": Clim}


def build(method: str, recipe: str | Recipe = "cifar10", **overrides: Any) -> Method:
    """A freshly initialised method.

    Args:
        method: its name, as in `METHODS`.
        recipe: a data set's name, as in `recipes.TABLE`, or a resolved recipe.
        overrides: fields of the recipe with other values, e.g. backbone="resnet18", width=16.

    Raises:
        ValueError: an unknown name or field, or a value that does not make sense.
    """
    row = recipe if isinstance(recipe, Recipe) else resolve(method, recipe, **overrides)
    return METHODS[row.method](backbone_of(row.training), row.settings)  # type: ignore[call-arg]


def backbone_of(training: Training) -> Backbone:
    """The recipe's network, with batch statistics in groups of the *global* batch, whatever the number of processes.

    Raises:
        ValueError: the groups do not divide over the processes.
    """
    _, processes = world()
    if training.bn_splits % processes and training.bn_splits > 1:
        raise ValueError(
            f"{training.bn_splits} batch-norm groups (bn_splits) do not divide over {processes} processes; "
            f"give a multiple of {processes}"
        )
    splits = max(1, training.bn_splits // processes)
    norm = partial(SplitBatchNorm2d, splits=splits) if splits > 1 else nn.BatchNorm2d
    return build_backbone(
        training.backbone, training.width, training.stem, batch_norm=norm, image_size=training.image_size
    )


__all__ = ["METHODS", "Method", "backbone_of", "build", "resolve"]
