"""Protocol `linear`: a linear classifier on frozen features. `models/evaluation/linear_probe.py` trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from models.evaluation.linear_probe import Probe
from models.evaluation.protocol import DetailTable, Protocol
from models.evaluation.published_linear import ROWS, published
from models.evaluation.result import EvaluationResult
from models.evaluation.task import LabelledImages, Task
from models.options import Shortcut, as_text, option

SWEEP = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, kw_only=True)
class LinearProtocol(Protocol):
    """A linear classifier on frozen features that are not normalised; the defaults are MSVQ's optimizer.

    MSVQ's released probe crops and flips the training images in every epoch (`augment`) and prints the best epoch on
    the test set. By default this protocol sees the centred square of each image once and reports the last epoch.

    Given several rates, one classifier is trained at each, all on the same batches, and beside each a second one that
    does not see a part of the labels. The rate whose second classifier is best on that part is reported; the test set
    has no say.

    Attributes:
        lr: peak learning rates, whatever the batch size.
        optimizer: "sgd" or "lars".
        batch_size: samples of a step; all of the data where there are fewer.
        schedule: how the learning rate falls: "cosine" at every step, "cosine per epoch", or "drops".
        drops: shares of the epochs; from each on, the rate is a tenth of what it was.
        augment: whether every epoch has new features, from random crops and flips.
        crop_scale: the smallest and largest share of an image that a random crop shows.
        crop_size: the side of the random crops in pixels; 0 takes that of the evaluation views.
        best_epoch: whether the result also holds the best epoch on the test set, under an id of its own.
        held_out: the share of each class's labels that choose among several rates.
        settings: the row of `published_linear.py` that these values are, as far as no option changed them.
    """

    name: ClassVar[str] = "linear"
    summary: ClassVar[str] = "a linear classifier on frozen features"

    lr: tuple[float, ...] = option(
        (1.0,),
        "peak learning rates; several are a sweep (default: that of the settings)",
        above=0,
        shortcut=Shortcut("--sweep", SWEEP, f"a sweep over the rates {as_text(SWEEP)}"),
    )
    epochs: int = option(100, "passes over the features (default: that of the settings)", at_least=1)
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    batch_size: int = option(256, "samples of a step (default: that of the settings)", at_least=1)
    schedule: str = "cosine"
    drops: tuple[float, ...] = ()
    augment: bool = option(False, "random crops and flips in every epoch")
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_size: int = option(
        0,
        "side of the random crops, in pixels; 0 for that of the test images' views (default: that of the settings)",
        at_least=0,
    )
    best_epoch: bool = option(
        False, "the best epoch on the test set, which papers print, beside the last one, under an id of its own"
    )
    held_out: float = 0.1
    settings: str = option(
        "msvq",
        f"published settings: {', '.join(ROWS)}, or 'published', the row of the run's method and data "
        "(default: msvq, the same for all)",
        metavar="NAME",
    )
    source: str = "MSVQ's code"
    report: str = "last epoch"

    @classmethod
    def chosen(cls, given: Mapping[str, Any], images: LabelledImages, pretraining: Mapping[str, str]) -> Protocol:
        values = dict(given)
        name = values.pop("settings", "msvq")
        if name == "published":
            if not pretraining:
                raise ValueError(f"--settings published needs a --run; with --weights take one of {', '.join(LINEAR)}")
            name = published(pretraining["method"], pretraining["recipe"])
        if name not in LINEAR:
            raise ValueError(f"--settings is '{name}'; take published, or one of {', '.join(LINEAR)}")
        protocol = replace(LINEAR[name], **values)
        if protocol.best_epoch and len(protocol.lr) > 1:
            raise ValueError("--best-epoch is of one learning rate; give one --lr, or leave out --best-epoch")
        if values.get("crop_size") and not protocol.augment:
            raise ValueError("--crop-size is of random crops; give --augment too, or leave out --crop-size")
        return protocol

    @property
    def id(self) -> str:
        rates = ",".join(f"{rate:g}" for rate in self.lr)
        choice = f"-by-{self.held_out:.0%}-held-out" if len(self.lr) > 1 else ""
        settings = "" if self.settings == "msvq" else f"-{self.settings}"
        features = "augmented" if self.augment else "cached"
        if self.augment and self.crop_size:
            features += str(self.crop_size)
        training = f"{self.optimizer}-lr{rates}{choice}-b{self.batch_size}-e{self.epochs}{settings}"
        return f"linear-{features}-{training}-{self._suffix()}"

    def as_dict(self) -> dict[str, Any]:
        features = "raw pooled, random crop and flip" if self.augment else "raw pooled, no augmentation"
        choice = f"{self.held_out:.0%} of each class's labels, held out by the seed" if len(self.lr) > 1 else "given"
        return {**super().as_dict(), "features": features, "rate_chosen_by": choice}

    def measure(self, network: nn.Module, task: Task, seeds: Sequence[int]) -> list[EvaluationResult]:
        images = task.images
        probe = Probe(network, task.extractor, images.bank, images.queries, self, images.labelled, images.query_N)
        return [probe.result(seed) for seed in seeds]

    @classmethod
    def detail_table(cls, row: Mapping[str, Any]) -> DetailTable | None:
        """Return every rate of a sweep, with a mark at the one that the held-out labels chose, or the best epoch."""
        if best := row.get("best_epoch"):
            cells = (str(best["epoch"]), f"{best['top1']:.2f}", best["protocol"])
            return DetailTable("the best epoch, chosen by the test set", ("epoch", "top-1 %", "protocol"), [cells])
        if "rates" not in row:
            return None
        rows = []
        for rate in row["rates"]:
            mark = "* " if rate["lr"] == row["lr"] else ""
            values = (rate.get(name) for name in ("held_out_top1", "top1", "top5"))
            shown = ("diverged" if value is None else f"{value:.2f}" for value in values)
            rows.append((f"{mark}{rate['lr']:g}", *shown))
        title = "learning rates; the one marked was chosen by the held-out labels"
        return DetailTable(title, ("lr", "held-out top-1 %", "top-1 %", "top-5 %"), rows)


#: The published settings by name.
LINEAR = {name: LinearProtocol(settings=name, **row) for name, row in ROWS.items()}
