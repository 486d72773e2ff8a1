"""How a network is measured: frozen protocols, each with an id that goes beside every number it produces.

A number without its protocol cannot be compared. Two numbers with the same id, data and image size can. An id names
whatever differs from the protocol's usual form, also how the network saw the images (`conditions.py`); `as_dict` says
everything. The published settings are rows of `tables/probes.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from models.evaluation.input_settings import InputSettings

SCHEDULES = ("cosine", "cosine per epoch", "drops")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all protocols say of themselves.

    Attributes:
        encoder: whose pooled features.
        checkpoint: of the run: "newest", or "best" by its kNN monitor; "untrained" and "pixels" are baselines.
        labels: what is learned from: "all", a share of each class drawn by the seed ("10%"), or a published list.
        precision: of the forward passes.
        pixels: whose filter cuts the views.
    """

    seeded: ClassVar[bool] = False  # whether the seed changes anything where all labels are used

    encoder: str = "student backbone"
    checkpoint: str = "newest"
    labels: str = "all"
    precision: str = "fp32"
    pixels: str = "area"

    def _of(self) -> str:
        labels = "" if self.labels == "all" else f"-labels-{self.labels.replace(' ', '-')}"
        checkpoint = "" if self.checkpoint == "newest" else f"-{self.checkpoint}"
        return f"{self.encoder.split()[0]}{labels}{checkpoint}{self._seen()}"

    def _seen(self) -> str:
        return InputSettings(self.precision, self.pixels).in_id

    @property
    def id(self) -> str:
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class KnnProtocol(Protocol):
    """Weighted kNN on L2-normalised features; the defaults are those of MSVQ's monitor.

    Attributes:
        k: neighbours that vote, or all of the bank where it is smaller.
        temperature: of the weight exp(cosine / temperature).
        images: what is done to the images; nothing is random.
    """

    k: int = 200
    temperature: float = 0.1
    distance: str = "cosine"
    images: str = "whole shorter side, centred"
    source: str = "MSVQ's code: k 200, temperature 0.1, every epoch"

    @classmethod
    def for_bank(cls, size: int) -> KnnProtocol:
        """The published k = 200 for banks of 10,000 images and more; 20 for smaller ones, where 200 are too many."""
        return cls(k=200 if size >= 10_000 else 20)

    @property
    def id(self) -> str:
        return f"knn-k{self.k}-t{self.temperature:g}-{self.distance}-{self._of()}"


@dataclass(frozen=True, kw_only=True)
class LinearProtocol(Protocol):
    """A linear classifier on frozen raw features; the defaults are MSVQ's optimizer.

    MSVQ's released probe crops and flips the training images anew in every epoch (`augment`) and prints the best epoch
    on the test set. This one looks, by default, at each image once, whole, and reports the last epoch.

    With several rates one classifier is trained at each, all by the same batches, and beside each a second one that
    does not see a part of the labels. The rate whose second classifier is best on that part is reported; the test set
    is not asked.

    Attributes:
        lr: peak learning rates, at any batch size.
        optimizer: "sgd" or "lars".
        batch_size: samples of a step; all of the data where they are fewer.
        schedule: of the learning rate, to 0: "cosine" at every step or "cosine per epoch"; or "drops".
        drops: shares of the training after which the rate is a tenth of what it was.
        augment: features anew in every epoch, from random crops and flips.
        held_out: share of each class's labels that choose among several rates.
        settings: the row of `tables/probes.py` that these are, as far as the command line did not change them.
    """

    seeded: ClassVar[bool] = True

    lr: tuple[float, ...] = (1.0,)
    epochs: int = 100
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    batch_size: int = 256
    schedule: str = "cosine"
    drops: tuple[float, ...] = ()
    augment: bool = False
    crop_scale: tuple[float, float] = (0.08, 1.0)
    held_out: float = 0.1
    settings: str = "msvq"
    source: str = "MSVQ's code"
    report: str = "last epoch"

    @property
    def id(self) -> str:
        lr = ",".join(f"{rate:g}" for rate in self.lr)
        chosen = f"-by-{self.held_out:.0%}-held-out" if len(self.lr) > 1 else ""
        settings = "" if self.settings == "msvq" else f"-{self.settings}"
        features = "augmented" if self.augment else "cached"
        training = f"{self.optimizer}-lr{lr}{chosen}-b{self.batch_size}-e{self.epochs}{settings}"
        return f"linear-{features}-{training}-{self._of()}"

    def as_dict(self) -> dict[str, Any]:
        features = "raw pooled, random crop and flip" if self.augment else "raw pooled, no augmentation"
        choice = f"{self.held_out:.0%} of each class's labels, held out by the seed" if len(self.lr) > 1 else "given"
        return {**super().as_dict(), "features": features, "rate_chosen_by": choice}


@dataclass(frozen=True, kw_only=True)
class FinetuneProtocol(Protocol):
    """The whole network with a linear classifier, trained end to end; the settings are CGH's for 1 % and 10 %.

    Attributes:
        lr_backbone, lr_head: peak learning rates, at any batch size.
        batch_size: samples of a step over all processes; all of the labelled images where they are fewer, and as many
            less as leave no last batch below half of it: every image is seen once in each epoch.
        schedule, drops: as in `LinearProtocol`.
        crop_scale: share of the image that training crops show; they are flipped half of the time.
        norm: what batch norms do while training.
    """

    seeded: ClassVar[bool] = True

    lr_backbone: float = 0.005
    lr_head: float = 0.02
    epochs: int = 70
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 256
    schedule: str = "drops"
    drops: tuple[float, ...] = (30 / 70, 60 / 70)
    crop_scale: tuple[float, float] = (0.08, 1.0)
    norm: str = "statistics of the global batch"
    precision: str = "bf16"
    settings: str = "cgh"
    source: str = "CGH's code, for 1 % and 10 % of ImageNet's labels; for other shares this project's choice"
    report: str = "last epoch"

    @property
    def id(self) -> str:
        rates = f"lr{self.lr_backbone:g}+{self.lr_head:g}"
        return f"finetune-sgd-{rates}-b{self.batch_size}-e{self.epochs}-{self.precision}-{self._of()}"

    def _seen(self) -> str:
        return InputSettings(pixels=self.pixels).in_id  # its id has the precision anyway


@dataclass(frozen=True, kw_only=True)
class RetrieveProtocol(Protocol):
    """Images of the query's class among the nearest of the bank, by cosine of L2-normalised features.

    recall@k is the share of queries with an image of their class among the k nearest; mAP the mean over queries of the
    average precision of the whole ranking. Queries whose class the bank lacks count with 0.

    Attributes:
        k: of recall@k.
        bank: "given", or "leave-one-out": the queries themselves, each without itself.
    """

    k: tuple[int, ...] = (1, 5, 10)
    distance: str = "cosine"
    ranking: str = "whole bank"
    bank: str = "given"
    images: str = "whole shorter side, centred"
    source: str = "recall@k as in metric learning (Jegou et al., PAMI 2011); average precision as in scikit-learn"

    @property
    def id(self) -> str:
        alone = "-leave-one-out" if self.bank == "leave-one-out" else ""
        return f"retrieve-r{','.join(map(str, self.k))}-map-{self.distance}{alone}-{self._of()}"
