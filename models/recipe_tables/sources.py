"""A hyper-parameter and where it comes from.

"paper" is readable text of the publication, "code" the authors' released code, "sibling" other code of the same group,
"inferred" what the specifications conclude, "ours" a choice of this project where nothing was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Sourced(NamedTuple):
    """A value and its source."""

    value: Any
    source: str


Row = Mapping[str, Sourced]


def paper(value: Any) -> Sourced:
    return Sourced(value, "paper")


def code(value: Any) -> Sourced:
    return Sourced(value, "code")


def sibling(value: Any) -> Sourced:
    return Sourced(value, "sibling")


def inferred(value: Any) -> Sourced:
    return Sourced(value, "inferred")


def ours(value: Any) -> Sourced:
    return Sourced(value, "ours")
