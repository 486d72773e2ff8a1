"""The interface that every evaluation protocol implements: a frozen description, and how it is measured.

A number without its protocol cannot be compared; two numbers with the same id, data and image size can. An id names
whatever differs from the protocol's usual form, including how the network saw the images (`input_settings.py`).

A protocol is one file of `protocols/` and one line of its registry. From its class are generated its command and
options in eval.py, the printed table, eval-NAME.json, and what readers of results know about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from models.evaluation.input_settings import InputSettings
from models.evaluation.result import EvaluationResult, metrics
from models.evaluation.task import LabelledImages, Task
from models.options import option

PRECISIONS = ("fp32", "bf16")  # that eval.py offers; the monitors of a run measure in that of the training
_DRAWN_LABELS = re.compile(r"-labels-[\d.e-]+%")  # the part of an id that says a seed chose the labels


class DetailTable(NamedTuple):
    """A further table of text that is printed under a result."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to measure a network. Its fields are recorded with every result; fields made by `option` are options.

    Class attributes:
        name: its command in eval.py, the NAME of eval-NAME.json, and the first word of its ids.
        summary: one line of help.
        metric_titles: its metrics in percent, the most important first: a regular expression of the metric's name, and
            the title of its column, in which {} stands for the name.
        seeded: whether the seed changes the result even where all labels are used.
        takes_labels: whether --labels and --label-list make sense.
        takes_pixels: whether raw pixels can be measured as features, as a baseline.
        leaves_query_out: whether a query is left out of a bank that holds it, so that both may be the same images.

    Attributes:
        encoder: whose pooled features are measured; "pixels" is a baseline.
        checkpoint: the run's "newest" one, or its "best" by the kNN monitor; "untrained" is a baseline.
        labels: which labels are learned from: "all", a share of each class drawn by the seed ("10%"), or a list.
        precision: the number type of the forward passes.
        pixels: the filter that resizes the views; see `InputSettings`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    metric_titles: ClassVar[Mapping[str, str]] = {"top1": "top-1 %", "top5": "top-5 %"}
    seeded: ClassVar[bool] = True
    takes_labels: ClassVar[bool] = True
    takes_pixels: ClassVar[bool] = True
    leaves_query_out: ClassVar[bool] = False

    encoder: str = "student backbone"
    checkpoint: str = "newest"
    labels: str = "all"
    precision: str = option("fp32", "number type of the network's forward passes", choices=PRECISIONS)
    pixels: str = "area"

    @property
    def id(self) -> str:
        """The id that stands beside every number of this protocol; its first word is `name`."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return every field and the id, as JSON."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def chosen(cls, given: Mapping[str, Any], images: LabelledImages, pretraining: Mapping[str, str]) -> Protocol:
        """Return the protocol for these images: its usual form, with the values that the command line gives.

        Args:
            given: values of fields that `option` made.
            pretraining: "method" and "recipe" of the run that trained the encoder; empty for a file of weights.

        Raises:
            ValueError: a value does not suit the images; the message is one line.
        """
        return cls(**given)

    def measure(self, network: nn.Module, task: Task, seeds: Sequence[int]) -> list[EvaluationResult]:
        """Measure a network once for each seed; every process must call it, and every process gets all results."""
        raise NotImplementedError

    def evaluate(self, network: nn.Module, task: Task) -> dict[str, Any]:
        """Return the metrics of a network over all seeds that matter, as JSON, the same on every process."""
        network = network.to(memory_format=torch.channels_last).to(task.device)  # type: ignore[call-overload]  # torch's stub lacks it
        seeds = list(task.images.labelled)
        if not self.depends_on_seed(self.id):
            seeds = seeds[:1]
        return metrics(self.measure(network, task, seeds), seeds, task.images.queries.classes)

    @classmethod
    def depends_on_seed(cls, id: str) -> bool:
        """Return whether results with this id differ between seeds."""
        return cls.seeded or _DRAWN_LABELS.search(id) is not None

    @classmethod
    def metric_title(cls, name: str) -> str | None:
        """Return the column title of a metric, or None where `name` is no metric of this protocol."""
        titles = (title for pattern, title in cls.metric_titles.items() if re.fullmatch(pattern, name))
        return next((title.format(name) for title in titles), None)

    @classmethod
    def detail_table(cls, row: Mapping[str, Any]) -> DetailTable | None:
        """Return a further table about the first row of a result, or None; most protocols have none."""
        return None

    def _suffix(self) -> str:
        """Return the end of the id: encoder, labels, checkpoint and input settings, as far as they are unusual."""
        labels = "" if self.labels == "all" else f"-labels-{self.labels.replace(' ', '-')}"
        checkpoint = "" if self.checkpoint == "newest" else f"-{self.checkpoint}"
        return f"{self.encoder.split()[0]}{labels}{checkpoint}{self._input_suffix()}"

    def _input_suffix(self) -> str:
        return InputSettings(self.precision, self.pixels).in_id
