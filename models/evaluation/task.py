"""The task that a protocol measures a network on: labelled images, and the extraction of their features.

Each of several processes holds an interleaved share of the features; `Task.classification` collects their results.

Shapes: N images of the bank, M queries of this process, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.evaluation.feature_extractor import FeatureExtractor
from models.evaluation.result import EvaluationResult, classified
from models.search.sharded_features import LocalFeatures, all_gather_rows
from pipelines import Dataset


@dataclass(frozen=True)
class LabelledImages:
    """The images of an evaluation and which of their labels are used.

    Attributes:
        bank: the images whose labels are learned from.
        queries: the images that are classified or searched for, normalised like the bank.
        labelled: for each seed, the ascending numbers of the images of the bank whose labels are used.
        query_N: the ascending numbers of the queries that have a label.
        labels: which labels are used, as a protocol records it: "all", "10%" or "list 1a2b3c4d".
    """

    bank: Dataset
    queries: Dataset
    labelled: Mapping[int, NDArray[np.int64]]
    query_N: NDArray[np.int64]
    labels: str

    @property
    def same(self) -> bool:
        """Whether the queries are the images of the bank."""
        return self.bank.checksum == self.queries.checksum

    @property
    def bank_size(self) -> int:
        """The number of labelled images that are learned from with one seed."""
        return len(next(iter(self.labelled.values())))

    @property
    def bank_N(self) -> NDArray[np.int64]:
        """The ascending numbers of all images of the bank that some seed uses."""
        return np.unique(np.concatenate(list(self.labelled.values())))


@dataclass(frozen=True)
class Task:
    """Labelled images, and how features are computed from them.

    Attributes:
        architecture: the arguments of `build_backbone` for the network that is measured.
    """

    images: LabelledImages
    extractor: FeatureExtractor
    architecture: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """The device that networks and features are on."""
        return torch.device(self.extractor.loading["device"])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.images.bank.classes)

    def bank_features(self, network: nn.Module) -> LocalFeatures:
        """Return this process's features of the bank: of every image that some seed uses."""
        return self.extractor.local_features(network, self.images.bank, self.images.bank_N)

    def query_features(self, network: nn.Module) -> LocalFeatures:
        """Return this process's features of the labelled queries."""
        return self.extractor.local_features(network, self.images.queries, self.images.query_N)

    def bank_labels(self) -> Tensor:
        """Return the class of every image of the bank's data set, int64 on the CPU; -1 where it has no label."""
        return torch.from_numpy(self.images.bank.labels.astype(np.int64))

    def query_labels(self) -> Tensor:
        """Return the class of every image of the queries' data set, int64 on the CPU; -1 where it has no label."""
        return torch.from_numpy(self.images.queries.labels.astype(np.int64))

    def classification(
        self, number_M: Tensor, scores_MC: Tensor, facts: Mapping[str, Any] | None = None
    ) -> EvaluationResult:
        """Return the result of classifying the queries, collected from all processes.

        Args:
            number_M: the numbers of this process's queries.
            scores_MC: the score of each class for each of them.
            facts: what else the result should hold, as JSON.
        """
        number_N, scores_NC = all_gather_rows(number_M, scores_MC)
        return classified(scores_NC, self.query_labels()[number_N.cpu()], facts)
