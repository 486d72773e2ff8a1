"""The rows of ICCL, MNCL, SimCLR, BYOL, SimSiam and NNCLR: complete, sourced, and of the fields' own types."""

from dataclasses import fields

import pytest

from models import resolve
from models.methods.recipes import names, recipe_for
from models.methods.registry import REGISTRY
from models.training.config import Training

METHODS = ("byol", "iccl", "mncl", "nnclr", "simclr", "simsiam")
EVERYWHERE = {"cifar10", "cifar100", "stl10", "tiny_imagenet", "photos", "digits"}
FURTHER = {name: {"imagenet"} for name in ("byol", "nnclr", "simclr", "simsiam")} | {
    "iccl": {"imagenet", "imagenet_vit", "imagenette"},
    "mncl": {"cifar10_224"},
}


@pytest.mark.parametrize("method", METHODS)
def test_rows(method):
    assert set(names(method)) == EVERYWHERE | FURTHER.get(method, set())
    kinds = {item.name: type(item.default) for cls in (Training, REGISTRY[method].settings) for item in fields(cls)}
    for name in names(method):
        resolve(method, name)  # nothing in it is refused
        for field, (value, source) in REGISTRY[method].rows[name].items():
            assert type(value) is kinds[field], f"{name}: {field}"
            assert source in {"paper", "code", "sibling", "inferred", "ours"}


def test_rows_that_only_a_name_picks():
    assert recipe_for("mncl", "cifar10", 32) == "cifar10"
    assert recipe_for("iccl", "imagenet", 400) == "imagenet"
    assert recipe_for("iccl", "tiny-imagenet-200", 64) == "tiny_imagenet"
    assert recipe_for("byol", "ILSVRC/imagenet-1k", 400) == "imagenet"
    assert recipe_for("moco", "imagenette2-160", 160) == "photos"  # it has no row for these ten classes
    assert recipe_for("iccl", "imagenette2-160", 160) == "imagenette"


@pytest.mark.parametrize("method", ["msvq", "mncl"])
def test_imagenet_is_refused_where_nothing_is_published(method):
    with pytest.raises(
        ValueError, match=f"nothing is published for {method} on ImageNet; give --recipe photos"
    ) as error:
        recipe_for(method, "imagenet-1k", 400)
    assert "\n" not in str(error.value)
    assert recipe_for(method, "tiny-imagenet-200", 64) == "tiny_imagenet"
