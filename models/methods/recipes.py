"""Recipes: every hyper-parameter of a method on a data set, each with its source.

A recipe is a `Training` (what any method needs) and the method's own settings. The values are in
`models/recipe_tables/`, one file for each method. `python train.py --method clim --recipe cifar10 --help` shows them;
any can be overridden on the command line, and the values used are recorded in the run's config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from models.methods.registry import REGISTRY, Entry
from models.recipe_tables.sources import Row, Sourced
from models.training.config import Training, with_current_names


class Recipe(NamedTuple):
    """The resolved recipe of a method and a data set; `sources` gives the origin of every value."""

    method: str
    name: str
    training: Training
    settings: Any
    sources: Mapping[str, str]

    @property
    def values(self) -> dict[str, Any]:
        """Every field of training and settings as JSON, in which a tuple is a list."""
        return as_json(asdict(self.training) | asdict(self.settings))


def recipe(method: str, name: str, **overrides: Any) -> Recipe:
    """Return the recipe of a method for a data set, with overridden values.

    Raises:
        ValueError: there is no such method or recipe, a field is unknown, or a value is illegal.
    """
    rows = _entry(method).rows
    if name not in rows:
        raise ValueError(
            f"method {method} has no recipe '{name}'; take one of {', '.join(names(method))} with --recipe"
        )
    return _resolved(method, name, rows[name], overrides)


def recipe_of_run(config: Mapping[str, Any], **overrides: Any) -> Recipe:
    """Return the recipe that a run was started with, with overridden values.

    The tables do not count: they may have been corrected since. A field that the run's version did not have is left to
    its default, which is what that version did.

    Args:
        config: what the run's config.json holds.

    Raises:
        ValueError: there is no such method, a field is unknown, or a value is illegal.
        KeyError, TypeError, AttributeError: it is no configuration of a run.
    """
    sources = config.get("sources", {})
    row = {
        field: Sourced(tuple(value) if isinstance(value, list) else value, str(sources.get(field, "default")))
        for field, value in with_current_names(config["recipe"]).items()
    }
    return _resolved(config["method"], config["recipe_name"], row, overrides)


def _resolved(method: str, name: str, row: Row, overrides: Mapping[str, Any]) -> Recipe:
    entry, defaults = _entry(method), defaults_of(method)
    for unknown in (row.keys() | overrides.keys()) - defaults.keys():
        raise ValueError(
            f"recipe {method}/{name} has no field '{unknown}'; its fields are {', '.join(sorted(defaults))}"
        )
    values = {**defaults, **{field: item.value for field, item in row.items()}, **overrides}
    sources = dict.fromkeys(defaults, "default") | {field: item.source for field, item in row.items()}
    training, settings = (
        cls(**{item.name: values[item.name] for item in fields(cls)}) for cls in (Training, entry.settings)
    )
    if hasattr(settings, "check"):
        settings.check(training)  # values of the method that must agree with those of the training
    return Recipe(method, name, training, settings, sources | dict.fromkeys(overrides, "command line"))


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON holds them: a tuple is a list."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def defaults_of(method: str) -> dict[str, Any]:
    """Return the default of every field of a method's recipes: what a run of an earlier version, without it, did."""
    return {item.name: item.default for cls in (Training, _entry(method).settings) for item in fields(cls)}


def names(method: str) -> list[str]:
    """Return the names of the data sets that a method has a recipe for."""
    return sorted(_entry(method).rows)


def recipe_for(method: str, source: str, median_side: float) -> str:
    """Return the recipe whose name the data set's source contains; otherwise the one for images of that size.

    Args:
        source: the name of the data set's source, such as "cifar-10-batches-py".
        median_side: the median side of its images in pixels.

    Raises:
        ValueError: the data set is ImageNet, for which the method has no recipe.
    """
    plain = "".join(letter for letter in source.lower() if letter.isalnum())
    if "imagenette" not in names(method):
        plain = plain.replace("imagenette", "")  # ten classes of ImageNet; ImageNet's recipe is not for them
    matching = [name for name in names(method) if name.replace("_", "") in plain]
    if matching:
        return max(matching, key=len)
    if "imagenet" in plain:
        raise ValueError(
            f"nothing is published for {method} on ImageNet; give --recipe photos (ResNet-18, 128 pixels), "
            "and values of your own beside it"
        )
    return "cifar10" if median_side <= 40 else "tiny_imagenet" if median_side <= 80 else "photos"


def _entry(method: str) -> Entry:
    if method not in REGISTRY:
        raise ValueError(f"unknown method '{method}'; take one of {', '.join(sorted(REGISTRY))}")
    return REGISTRY[method]
