"""What the sources of the recipes say, transcribed into published.json independently of the tables.

Each entry of the file has a document, the recipes that it speaks of (`METHOD/RECIPE`, `METHOD/*` for all of a method),
and values by field. Where entries name the same field of the same recipe, the last one counts. A test compares every
value of a row that is marked as "paper", "code" or "sibling" with the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("published.json")
PUBLISHED_SOURCES = ("paper", "code", "sibling")


class Published(NamedTuple):
    """A value as its source states it, and that source."""

    value: Any
    document: str


def read_published(names: Mapping[str, list[str]], path: Path = FILE) -> dict[tuple[str, str], dict[str, Published]]:
    """Return the published values by (method, recipe) and field.

    Args:
        names: the recipes of every method, for `METHOD/*`.

    Raises:
        ValueError: an entry names a recipe that does not exist.
    """
    found: dict[tuple[str, str], dict[str, Published]] = {
        (method, recipe): {} for method, recipes in names.items() for recipe in recipes
    }
    for entry in json.loads(path.read_text()):
        values = {
            field: Published(tuple(value) if isinstance(value, list) else value, entry["document"])
            for field, value in entry["values"].items()
        }
        for row in entry["rows"].split():
            method, recipe = row.split("/")
            if method not in names:
                raise ValueError(f"{path.name} speaks of {method}, which is no method")
            for name in names[method] if recipe == "*" else [recipe]:
                if (method, name) not in found:
                    raise ValueError(f"{path.name} speaks of {method}/{name}, which is no recipe")
                found[method, name] |= values
    return found
