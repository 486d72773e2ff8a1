"""What a file or a caller says of a network and of its images, checked before anything is made on its word."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from models.networks.backbones import NAMES, STEMS

_SIDE, _WIDTH, _COUNT = 4096, 4096, 10**15  # far above what is used, far below what takes a machine's memory
_WHOLE = {"width": (1, _WIDTH), "image_size": (1, _SIDE), "step": (0, _COUNT), "samples_seen": (0, _COUNT)}
_NAMED = {"backbone": NAMES, "stem": STEMS}


def check_claims(facts: Mapping[str, Any]) -> None:
    """Refuses values that no network or no view can be made of; what is not said is not checked.

    Raises:
        ValueError: naming the fact and its value, on one line.
    """
    for name, value in facts.items():
        told = f"{name} is {reprlib.repr(value)}"
        if name in _NAMED and value not in _NAMED[name]:
            raise ValueError(f"{told}; take one of {', '.join(_NAMED[name])}")
        if name in _WHOLE:
            low, high = _WHOLE[name]
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{told}; give a whole number from {low} to {high:,}")
        if name == "crop_ratio" and not _between(value, 1e-3, 1):
            raise ValueError(f"{told}; give a share above 0, at most 1")
        if name in ("mean", "std"):
            if not isinstance(value, list | tuple) or len(value) != 3 or not all(_between(v, 0, 1) for v in value):
                raise ValueError(f"{told}; give three numbers on the scale 0 to 1")
            if name == "std" and min(value) < 1e-6:
                raise ValueError(f"{told}; give numbers above 0")


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high  # not a number is between nothing
