"""Accuracies that were published for recipes: what a reproduction is compared with.

All are top-1 accuracies in percent of a ResNet-18 after 200 epochs. `linear` is the best epoch of an augmented linear
probe on the test set, which is what the papers print; `knn` has 200 neighbours at temperature 0.1.
"""

from __future__ import annotations

from typing import NamedTuple


class PublishedResult(NamedTuple):
    """Accuracies of a recipe in percent; None where none was published."""

    linear: float | None
    knn: float | None
    document: str


_MSVQ = "MSVQ's README and its curves of kNN, read off to about 0.1 points"
_BESIDE = "Benchmark-Methods-For-MNN, README"
RESULTS: dict[tuple[str, str], PublishedResult] = {
    ("msvq", "cifar10"): PublishedResult(91.46, 90.1, _MSVQ),
    ("moco", "cifar10"): PublishedResult(86.18, 81.2, _MSVQ),
    ("ressl", "cifar10"): PublishedResult(90.20, 89.1, "ReSSL's paper; kNN: MSVQ's curves"),
    ("mncl", "cifar10_224"): PublishedResult(90.18, None, "MNCLGLF's README"),
    ("byol", "cifar10"): PublishedResult(89.54, 87.54, _BESIDE),
    ("simclr", "cifar10"): PublishedResult(87.72, 85.30, _BESIDE),
    ("nnclr", "cifar10"): PublishedResult(87.72, 85.19, _BESIDE),
}
