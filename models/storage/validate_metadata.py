"""Validation of untrusted metadata about a network and its images, before anything is built from it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from models.networks.backbones import NAMES, STEMS
from models.networks.vit import INITIALISATIONS

_SIDE, _WIDTH, _COUNT = 4096, 4096, 10**15  # far above what is used, far below what exhausts a machine's memory
_WHOLE = {
    "width": (1, _WIDTH),
    "image_size": (1, _SIDE),
    "heads": (1, _WIDTH),
    "step": (0, _COUNT),
    "samples_seen": (0, _COUNT),
}
_NAMED = {"backbone": NAMES, "stem": STEMS, "initialisation": INITIALISATIONS}


def check_metadata(facts: Mapping[str, Any]) -> None:
    """Refuse values from which no network or no view can be built; absent facts are not checked.

    Raises:
        ValueError: a value is illegal; the message names the fact and its value, in one line.
    """
    for name, value in facts.items():
        given = f"{name} is {reprlib.repr(value)}"
        if name in _NAMED and value not in _NAMED[name]:
            raise ValueError(f"{given}; take one of {', '.join(_NAMED[name])}")
        if name in _WHOLE:
            low, high = _WHOLE[name]
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{given}; give a whole number from {low} to {high:,}")
        if name in ("qkv_bias", "final_norm") and type(value) is not bool:
            raise ValueError(f"{given}; give true or false")
        if name == "norm_epsilon" and not _between(value, 1e-12, 0.1):
            raise ValueError(f"{given}; give a number above 0, at most 0.1")
        if name == "crop_ratio" and not _between(value, 1e-3, 1):
            raise ValueError(f"{given}; give a share above 0, at most 1")
        if name in ("mean", "std"):
            if not isinstance(value, list | tuple) or len(value) != 3 or not all(_between(v, 0, 1) for v in value):
                raise ValueError(f"{given}; give three numbers on the scale 0 to 1")
            if name == "std" and min(value) < 1e-6:
                raise ValueError(f"{given}; give numbers above 0")


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high  # false for nan
