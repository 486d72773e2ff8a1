"""MSVQ's recipes (arXiv 2305.05370): the commands of the authors' README, as of 2023-09-26 and later."""

from __future__ import annotations

from models.recipe_tables.sources import Row, code, ours
from models.recipe_tables.trunks import DIGITS, PHOTOS, small, stl10, tiny_imagenet

_RELATIONS: Row = {
    "second_ema": code(0.95),
    "weak_flip": code(0.9),
    "student_temperature": code(0.1),
    "teacher_temperature": code(0.04),
}
_SMALL: Row = {**small(code), **_RELATIONS}

ROWS: dict[str, Row] = {
    "cifar10": _SMALL,
    "cifar100": {**_SMALL, "second_ema": code(0.93), "teacher_temperature": code(0.03)},
    "stl10": {**stl10(code), **_RELATIONS, "second_ema": code(0.99)},
    "tiny_imagenet": {**tiny_imagenet(code), **_RELATIONS, "second_ema": code(0.99)},
    "photos": {**_SMALL, **PHOTOS},
    "digits": {**_SMALL, **DIGITS, "weak_flip": ours(0.0)},
}
