"""Which values of a file become black and white: the scale of pictures that do not use all of their bits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class ValueRange(NamedTuple):
    """Values of a file, in its own units: `low` and all below become 0, `high` and all above 255."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g},{self.high:g}"


BYTES = ValueRange(0, 255)


def value_range(values: Any) -> ValueRange:
    """Return a range from two numbers.

    Raises:
        ValueError: these are no two finite numbers, the first of which is the smaller one.
    """
    numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 2 or not all(map(math.isfinite, values)) or not values[0] < values[1]:
        raise ValueError(f"{values!r} is no range of values; give two numbers, the smaller one first, such as 0,4095")
    return ValueRange(*values)


def in_words(scale: ValueRange | None) -> str:
    """Return what became black and white, for a message."""
    return "all values of their files" if scale is None else f"the values {scale.low:g} to {scale.high:g}"
