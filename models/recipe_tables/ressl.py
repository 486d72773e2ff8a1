"""ReSSL's recipes: small data from the experiments of MSVQ's authors, ImageNet from what CGH's code took over.

Those experiments leave STL-10 out: its row is inferred from Tiny-ImageNet's, as MSVQ's two rows are alike. They mirror
the weak view with probability 0.9, ReSSL's own code with 0.5, which these rows take.
"""

from __future__ import annotations

from models.recipe_tables.sources import Row, code, inferred, ours, sibling
from models.recipe_tables.trunks import DIGITS, PHOTOS, Source, imagenet, small, stl10, tiny_imagenet


def _relations(source: Source) -> Row:
    """Return the flip and the temperatures of ReSSL's relations, with their source."""
    return {
        "weak_flip": code(0.5),
        "student_temperature": source(0.1),
        "teacher_temperature": source(0.04),
    }


_SMALL: Row = {**small(sibling), **_relations(sibling)}
_IMAGENET: Row = {**imagenet(sibling), **_relations(sibling)}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "cifar10": _SMALL,
    "cifar100": _SMALL,
    "stl10": {**stl10(inferred), **_relations(inferred)},
    "tiny_imagenet": {**tiny_imagenet(sibling), **_relations(sibling)},
    "photos": {**_SMALL, **PHOTOS},
    "digits": {**_SMALL, **DIGITS, "weak_flip": ours(0.0)},
}
