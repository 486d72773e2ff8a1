"""Protocol `finetune`: backbone and classifier trained end to end, by `models/evaluation/finetune.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from models.evaluation.features import NotFinite
from models.evaluation.finetune import finetune
from models.evaluation.input_settings import InputSettings
from models.evaluation.protocol import PRECISIONS, Protocol
from models.evaluation.result import EvaluationResult
from models.evaluation.task import Task
from models.networks.backbone import Backbone
from models.options import option


@dataclass(frozen=True, kw_only=True)
class FinetuneProtocol(Protocol):
    """The whole network with a linear classifier, trained end to end; the settings are CGH's for 1 % and 10 %.

    Attributes:
        lr_backbone, lr_head: peak learning rates, whatever the batch size.
        batch_size: images of a step, over all processes. There are fewer where fewer images are labelled, or where the
            last batch would otherwise be less than half of one: each image is seen once in each epoch.
        schedule, drops: the learning rate over the training, as in `LinearProtocol`.
        crop_scale: the smallest and largest share of an image that a training crop shows; half of them are mirrored.
        norm: what batch norms do during training.
    """

    name: ClassVar[str] = "finetune"
    summary: ClassVar[str] = "the whole network, end to end"
    takes_pixels: ClassVar[bool] = False

    lr_backbone: float = option(0.005, "peak learning rate of the backbone", above=0)
    lr_head: float = option(0.02, "peak learning rate of the classifier", above=0)
    epochs: int = option(70, "passes over the labelled images", at_least=1)
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = option(256, "images of a step, over all processes", at_least=1)
    schedule: str = "drops"
    drops: tuple[float, ...] = (30 / 70, 60 / 70)
    crop_scale: tuple[float, float] = (0.08, 1.0)
    norm: str = "statistics of the global batch"
    precision: str = option("bf16", "number type of the network's passes, in training too", choices=PRECISIONS)
    settings: str = "cgh"
    source: str = "CGH's code, for 1 % and 10 % of ImageNet's labels; for other shares this project's choice"
    report: str = "last epoch"

    @property
    def id(self) -> str:
        rates = f"lr{self.lr_backbone:g}+{self.lr_head:g}"
        return f"finetune-sgd-{rates}-b{self.batch_size}-e{self.epochs}-{self.precision}-{self._suffix()}"

    def _input_suffix(self) -> str:
        return InputSettings(pixels=self.pixels).in_id  # the id has the precision already

    def measure(self, network: nn.Module, task: Task, seeds: Sequence[int]) -> list[EvaluationResult]:
        return [self._tuned(network, task, seed) for seed in seeds]

    def _tuned(self, network: nn.Module, task: Task, seed: int) -> EvaluationResult:
        images, extractor = task.images, task.extractor
        assert isinstance(network, Backbone)
        loading = {name: value for name, value in extractor.loading.items() if name != "dtype"}
        tuned, facts = finetune(
            network.state_dict(),
            task.architecture,
            images.bank,
            images.labelled[seed],
            extractor.view,
            self,
            seed,
            loading,
        )
        try:
            queries = task.query_features(tuned)
        except NotFinite:
            raise FloatingPointError("fine-tuning diverged in its last step; take smaller rates") from None
        return task.classification(queries.number_M, queries.features_MD, facts)
