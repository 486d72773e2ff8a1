"""How a network is measured: frozen protocols, each with an id that goes beside every number it produces.

A number without its protocol cannot be compared. Two numbers with the same id, data and image size can.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class KnnProtocol:
    """Weighted kNN on L2-normalised features; the defaults are those of MSVQ's monitor.

    Attributes:
        k: neighbours that vote, or all of the bank where it is smaller.
        temperature: of the weight exp(cosine / temperature).
        encoder: whose pooled features.
        images: what is done to the images; nothing is random.
    """

    k: int = 200
    temperature: float = 0.1
    distance: str = "cosine"
    encoder: str = "student backbone"
    images: str = "whole shorter side, centred"

    @classmethod
    def for_bank(cls, size: int) -> KnnProtocol:
        """The published k = 200 for banks of 10,000 images and more; 20 for smaller ones, where 200 are too many."""
        return cls(k=200 if size >= 10_000 else 20)

    @property
    def id(self) -> str:
        return f"knn-k{self.k}-t{self.temperature:g}-{self.distance}-{self.encoder.split()[0]}"

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}


@dataclass(frozen=True)
class LinearProtocol:
    """A linear classifier on frozen raw features, computed once; the optimizer is MSVQ's.

    MSVQ's released probe crops and flips the training images anew in every epoch and prints the best epoch on the test
    set. This one looks at each image once, whole, and reports the last epoch.

    Attributes:
        lr: peak learning rate, at any batch size.
        batch_size: samples of a step; all of the data where they are fewer.
        schedule: of the learning rate, per step, to 0.
    """

    lr: float = 1.0
    epochs: int = 100
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    batch_size: int = 256
    schedule: str = "cosine"
    features: str = "raw pooled, no augmentation"
    encoder: str = "student backbone"
    report: str = "last epoch"

    @property
    def id(self) -> str:
        return f"linear-cached-sgd-lr{self.lr:g}-b{self.batch_size}-e{self.epochs}-{self.encoder.split()[0]}"

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}
