"""CGH's recipes (arXiv 2308.13392; the one published configuration is ImageNet's).

Nothing is published for small data: those rows are CGH's own values on top of the small-data recipe of ReSSL's family,
whose trunk is MSVQ's. Multi-crop is off in all rows, as published; `--crops 192,160,128,96` turns it on.
"""

from __future__ import annotations

from models.recipe_tables.sources import Row, code, inferred, ours
from models.recipe_tables.trunks import DIGITS, PHOTOS, imagenet, small, stl10, tiny_imagenet

_CONTEXTS: Row = {
    "weak_flip": code(0.5),
    "stages": code(("layer3", "layer4")),
    "global_teacher_temperature": code(0.04),
    "global_student_temperature": code(0.1),
    "hyper_teacher_temperature": code(0.08),
    "hyper_student_temperature": code(0.08),
    "contrast_temperature": code(0.2),
    "contrast_epochs": code(5.0),
    "swap": code(True),
    "crops": code(()),
    "crop_low": code((0.172, 0.143, 0.114, 0.086)),
    "crop_high": code((0.86, 0.715, 0.571, 0.429)),
}
_IMAGENET: Row = {**imagenet(code), **_CONTEXTS}
_SMALL: Row = {**small(inferred), **_CONTEXTS}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "cifar10": _SMALL,
    "cifar100": {**_SMALL, "global_teacher_temperature": inferred(0.03)},
    "stl10": {**stl10(inferred), **_CONTEXTS},
    "tiny_imagenet": {**tiny_imagenet(inferred), **_CONTEXTS},
    "photos": {**_SMALL, **PHOTOS},
    "digits": {**_SMALL, **DIGITS, "weak_flip": ours(0.0)},
}
