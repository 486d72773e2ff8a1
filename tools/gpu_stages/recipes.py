"""The recipes whose steps are measured, each with its images; in a rehearsal with tiny networks and pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from models import resolve
from models.methods.recipes import Recipe
from models.methods.registry import REGISTRY
from models.training.config import Training
from pipelines import Dataset
from tools.gpu_stages.context import Context


@dataclass(frozen=True)
class _Measured:
    """A method, its recipe, the values that differ from the recipe, and whether it trains on photos."""

    method: str
    recipe: str
    changed: dict[str, Any]
    photos: bool = False


_VIT = {"backbone": "vit_small", "image_size": 224, "crop_size": 224, "optimizer": "adamw", "lr": 1e-4}
_MEASURED = {
    "msvq": _Measured("msvq", "cifar10", {}),
    "moco": _Measured("moco", "cifar10", {}),
    "clim": _Measured("clim", "cifar10", {"resolutions": (32, 24)}),
    "vit": _Measured("simclr", "photos", _VIT, photos=True),
    "resnet50": _Measured("moco", "imagenet", {}, photos=True),
}
#: For a rehearsal; each method takes those that it knows.
_TINY = {
    **{"width": 2, "batch_size": 8, "bn_splits": 2, "queue_size": 16, "hidden": 8, "dim": 8},
    **{"resolutions": (16, 12), "sync_bn": False},
}


def recipe_of(name: str, context: Context) -> Recipe:
    """Return a recipe by its name in this file."""
    measured = _MEASURED[name]
    known = {field.name for cls in (Training, REGISTRY[measured.method].settings) for field in fields(cls)}
    side = 32 if measured.photos else 16  # with an ImageNet stem a map of 16 px would have no pixels left to convolve
    tiny = {
        field: value for field, value in (_TINY | {"image_size": side, "crop_size": side}).items() if field in known
    }
    return resolve(measured.method, measured.recipe, **measured.changed | context.size({}, tiny))


def images_of(name: str, context: Context) -> Dataset:
    """Return the images that a recipe trains on."""
    return context.photos() if _MEASURED[name].photos else context.small_images()
