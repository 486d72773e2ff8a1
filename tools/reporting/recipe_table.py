"""The tables of published hyper-parameters: what the source says, what the recipe has, the test that compares them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.methods.registry import REGISTRY
from models.recipe_tables.published import PUBLISHED_SOURCES, Published, read_published
from models.recipe_tables.sources import Sourced

_TEST = "test_published.py"


def recipe_rows(path: Path) -> Iterator[list[str]]:
    """Yield the cells of the table: one row for each value of a method, with all recipes that have it.

    Args:
        path: published.json.

    Raises:
        ValueError: the file speaks of a recipe that does not exist, or lacks a value that a recipe marks as published.
    """
    number = {document: number for number, document in document_rows(path)}
    published = read_published({method: list(entry.rows) for method, entry in REGISTRY.items()}, path)
    yield ["method", "hyper-parameter", "source value", "ours", "marked", "recipes", "document", f"in {_TEST}"]
    yield ["---"] * 8
    for method, entry in sorted(REGISTRY.items()):
        recipes: dict[tuple[str, Published, Sourced], list[str]] = {}
        for name, row in entry.rows.items():
            for field, item in row.items():
                if item.source not in PUBLISHED_SOURCES:
                    continue
                if field not in published[method, name]:
                    raise ValueError(f"nothing about {field} of {method}/{name}, which is marked '{item.source}'")
                recipes.setdefault((field, published[method, name][field], item), []).append(name)
        for (field, source, ours), names in sorted(recipes.items(), key=lambda item: (item[0][0], item[1])):
            values = [_text(source.value), _text(ours.value)]
            test = f"`test_values[{method}-{names[0]}]`{' ...' if len(names) > 1 else ''}"
            yield [f"`{method}`", f"`{field}`", *values, ours.source, ", ".join(names), number[source.document], test]


def document_rows(path: Path) -> Iterator[list[str]]:
    """Yield number and name of every document of published.json, in the order of the file."""
    yield ["document", "what it is"]
    yield ["---:", "---"]
    documents = dict.fromkeys(entry["document"] for entry in json.loads(path.read_text()))
    for number, document in enumerate(documents, 1):
        yield [str(number), document]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
