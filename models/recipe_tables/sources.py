"""A hyper-parameter with its source.

"paper" is the text of the publication, "code" the authors' published code, "sibling" other code of the same group,
"inferred" a conclusion from both, and "ours" a choice of this project where nothing was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Sourced(NamedTuple):
    """A value and its source."""

    value: Any
    source: str


Row = Mapping[str, Sourced]


def without(row: Row, *fields: str) -> Row:
    """Return a row without some fields, which another method does not have."""
    return {field: value for field, value in row.items() if field not in fields}


def paper(value: Any) -> Sourced:
    """Return a value from the text of the publication."""
    return Sourced(value, "paper")


def code(value: Any) -> Sourced:
    """Return a value from the authors' published code."""
    return Sourced(value, "code")


def sibling(value: Any) -> Sourced:
    """Return a value from other code of the same group."""
    return Sourced(value, "sibling")


def inferred(value: Any) -> Sourced:
    """Return a value that paper and code imply."""
    return Sourced(value, "inferred")


def ours(value: Any) -> Sourced:
    """Return a value that this project chose."""
    return Sourced(value, "ours")
