"""Protocol `knn`: weighted nearest neighbours vote. The equations are in `models/evaluation/knn.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from models.evaluation.knn import predict_local
from models.evaluation.protocol import Protocol
from models.evaluation.result import EvaluationResult
from models.evaluation.task import LabelledImages, Task
from models.options import option
from models.search.sharded_features import LocalFeatures


@dataclass(frozen=True, kw_only=True)
class KnnProtocol(Protocol):
    """Weighted kNN on L2-normalised features; the defaults are those of MSVQ's monitor.

    Attributes:
        k: the neighbours that vote; all of the bank where it is smaller.
        temperature: of the weight exp(cosine / temperature) of a vote.
        images: how images are cropped; nothing is random.
    """

    name: ClassVar[str] = "knn"
    summary: ClassVar[str] = "weighted nearest neighbours, nothing is trained"
    seeded: ClassVar[bool] = False

    k: int = option(200, "number of neighbours that vote (default: 200, or 20 below 10,000 images)", at_least=1)
    temperature: float = option(0.1, "temperature of the votes", above=0)
    distance: str = "cosine"
    images: str = "whole shorter side, centred"
    source: str = "MSVQ's code: k 200, temperature 0.1, every epoch"

    @classmethod
    def for_bank(cls, size: int) -> KnnProtocol:
        """Return the usual protocol: the published k = 200 for banks of 10,000 images or more, and 20 below."""
        return cls(k=200 if size >= 10_000 else 20)

    @classmethod
    def chosen(cls, given: Mapping[str, Any], images: LabelledImages, pretraining: Mapping[str, str]) -> Protocol:
        check_k(given.get("k", 0), images.bank_size)
        return cls(**{"k": cls.for_bank(images.bank_size).k} | dict(given))

    @property
    def id(self) -> str:
        return f"knn-k{self.k}-t{self.temperature:g}-{self.distance}-{self._suffix()}"

    def measure(self, network: nn.Module, task: Task, seeds: Sequence[int]) -> list[EvaluationResult]:
        bank, queries = task.bank_features(network), task.query_features(network)
        results = []
        for seed in seeds:
            chosen = task.images.labelled[seed]
            own = torch.from_numpy(np.isin(bank.number_M.cpu().numpy(), chosen)).to(task.device)
            used = LocalFeatures(bank.number_M[own], bank.features_MD[own], len(chosen))
            scores_MC = predict_local(queries, used, task.bank_labels(), self.k, self.temperature, task.classes)
            results.append(task.classification(queries.number_M, scores_MC, {"labelled_images": len(chosen)}))
        return results


def check_k(largest: int, searched: int) -> None:
    """Refuse a --k that asks for more neighbours than there are images.

    Raises:
        ValueError: `largest` is more than the `searched` images.
    """
    if largest > searched:
        raise ValueError(f"--k is {largest}, but there are {searched} images to find; give at most as many")
