"""MoCo v2's recipes: ImageNet from the authors' code, small data from the experiments of MSVQ's authors.

Those experiments leave STL-10 out: its row is inferred from Tiny-ImageNet's, as MSVQ's two rows are alike.
"""

from __future__ import annotations

from models.recipe_tables.sources import Row, code, inferred, ours, sibling
from models.recipe_tables.trunks import DIGITS, PHOTOS, imagenet, small, stl10, tiny_imagenet

_IMAGENET: Row = {
    **imagenet(code),
    "lr": code(0.03),
    "decay_norm_and_bias": code(True),
    "warmup_epochs": code(0.0),
    "lr_per_epoch": code(True),
    "hidden": code(2048),
    "dim": code(128),
    "queue_size": code(65536),
    "temperature": code(0.2),
}
_SMALL: Row = {**small(sibling), "temperature": sibling(0.2)}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "cifar10": _SMALL,
    "cifar100": _SMALL,
    "stl10": {**stl10(inferred), "temperature": inferred(0.2)},
    "tiny_imagenet": {**tiny_imagenet(sibling), "temperature": sibling(0.2)},
    "photos": {**_SMALL, **PHOTOS},
    "digits": {**_SMALL, **DIGITS, "temperature": ours(0.1)},
}
