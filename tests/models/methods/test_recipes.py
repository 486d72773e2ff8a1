"""The tables of hyper-parameters: every row resolves, every value has a source, and data find their row."""

from dataclasses import FrozenInstanceError, fields

import pytest

from models import build
from models.methods.recipes import names, recipe, recipe_for
from models.methods.registry import REGISTRY
from models.recipe_tables.sources import Sourced
from models.training.config import Training
from models.training.optim import NAMES as OPTIMIZERS
from models.training.optim import cosine_schedule

SOURCES = {"paper", "code", "sibling", "inferred", "ours"}
EVERY = [(method, name) for method in sorted(REGISTRY) for name in names(method)]


@pytest.mark.parametrize(("method", "name"), EVERY)
def test_every_row_resolves_and_says_where_each_value_is_from(method, name):
    row = REGISTRY[method].rows[name]
    made = recipe(method, name)
    known = {field.name for cls in (Training, REGISTRY[method].settings) for field in fields(cls)}
    assert row.keys() <= known and made.sources.keys() == known
    values = {**vars(made.training), **vars(made.settings)}
    for field, item in row.items():
        assert isinstance(item, Sourced), f"{field} has no source"
        assert item.source in SOURCES, f"{field} comes from '{item.source}'"
        assert values[field] == item.value and made.sources[field] == item.source
        default = next(
            f.default for cls in (Training, REGISTRY[method].settings) for f in fields(cls) if f.name == field
        )
        assert type(item.value) is type(default), f"{field} is {item.value!r}, where the default is {default!r}"
    for field in ("backbone", "epochs", "batch_size", "optimizer", "lr", "weight_decay"):
        assert field in row, f"{method}/{name} leaves {field} to the default of another method"
    assert made.training.optimizer in OPTIMIZERS
    assert 0 <= cosine_schedule(0, 10, made.training.epochs, made.training.warmup_epochs) <= 1


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_settings_and_training_share_no_name_and_explain_each_field(method):
    own = {field.name for field in fields(REGISTRY[method].settings)}
    assert not own & {field.name for field in fields(Training)}
    for field in (*fields(REGISTRY[method].settings), *fields(Training)):
        assert field.metadata.get("help"), f"{field.name} has no help"


@pytest.mark.parametrize(
    ("source", "side", "expected"),
    [
        ("cifar10.tar.xz", 32, "cifar10"),
        ("cifar-10-batches-py", 32, "cifar10"),
        ("cifar-100-python.tar.gz", 32, "cifar100"),
        ("CIFAR100", 32, "cifar100"),
        ("stl10_binary.tar.gz", 96, "stl10"),
        ("tiny-imagenet-200.zip", 64, "tiny_imagenet"),
        ("Tiny ImageNet", 64, "tiny_imagenet"),
        ("imagenette2-160.tgz", 160, "imagenette"),
        ("imagenet-1k", 400, "imagenet"),
        ("digits", 8, "digits"),
        ("holiday", 8, "cifar10"),
        ("holiday", 40, "cifar10"),
        ("holiday", 41, "tiny_imagenet"),
        ("holiday", 80, "tiny_imagenet"),
        ("holiday", 300, "photos"),
    ],
)
def test_data_find_their_row_by_source_and_by_size(source, side, expected):
    assert recipe_for("clim", source, side) == expected
    assert expected in names("clim")


@pytest.mark.parametrize("method", REGISTRY)
def test_recipes_of_published_data_sets_resize_as_their_papers_did(method):
    for name in names(method):
        cubic = name == "cifar10_224" or (name == "imagenet" and method in ("byol", "simclr", "nnclr"))
        expected = "area" if name in ("photos", "digits") else "bicubic" if cubic else "bilinear"
        if (method, name) == ("clim", "imagenette"):
            expected = "area"  # this project's own row
        assert recipe(method, name).training.resize == expected
    assert {view.resize for view in build(method, "digits", resize="bicubic", width=4).views} == {"bicubic"}


def test_overrides_replace_values_and_are_named():
    made = recipe("clim", "cifar10", lr=0.5, queue_size=512)
    assert (made.training.lr, made.settings.queue_size, made.training.momentum) == (0.5, 512, 0.9)
    assert [made.sources[name] for name in ("lr", "queue_size")] == ["command line"] * 2
    assert recipe("clim", "cifar10").training.lr == 0.06  # the table itself is untouched
    with pytest.raises(FrozenInstanceError):
        made.training.lr = 1.0


@pytest.mark.parametrize(
    ("arguments", "changed", "message"),
    [
        (("magic", "cifar10"), {}, "unknown method 'magic'; take one of .*clim"),
        (("clim", "nonsense"), {}, "method clim has no recipe 'nonsense'; take one of cifar10, .* with --recipe"),
        (("clim", "cifar10"), {"colour": 1}, "recipe clim/cifar10 has no field 'colour'; its fields are"),
        (("clim", "cifar10"), {"lr": 0.0}, "lr is 0.0; give a number above 0"),
        (("clim", "cifar10"), {"lr": float("nan")}, "lr is nan; give a number above 0"),
        (("clim", "cifar10"), {"epochs": 0}, "epochs is 0; give at least 1"),
        (("clim", "cifar10"), {"weight_decay": -1.0}, "--weight-decay is -1.0; give 0 or more"),
        (("clim", "cifar10"), {"bn_splits": 3}, "a batch of 256 does not split into 3 batch-norm groups"),
        (("clim", "cifar10"), {"temperature": 0.0}, "--temperature is 0.0; give a number above 0"),
        (("clim", "cifar10"), {"resolutions": ()}, "give at least one side of 8 pixels or more"),
        (("clim", "cifar10"), {"ema": 1.5}, "--ema is 1.5; give 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, changed, message):
    with pytest.raises(ValueError, match=message):
        recipe(*arguments, **changed)
