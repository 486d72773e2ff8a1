"""One network measured by one protocol: the outcome for every seed, as figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.evaluation.feature_extractor import FeatureExtractor
from models.evaluation.features import NotFinite
from models.evaluation.finetune import finetune
from models.evaluation.knn import predict_local
from models.evaluation.linear_probe import Probe
from models.evaluation.protocols import FinetuneProtocol, KnnProtocol, LinearProtocol, Protocol, RetrieveProtocol
from models.evaluation.result import EvaluationResult, classified, metrics
from models.evaluation.retrieval import rank
from models.networks.backbone import Backbone
from models.search.sharded_features import LocalFeatures, all_gather_rows
from models.storage.encoder import Encoder
from tools.evaluation.data import Images


@dataclass(frozen=True)
class Measure:
    """Attributes:
    encoder: whose architecture and image size; the network that is measured is given with each call.
    """

    images: Images
    encoder: Encoder
    passes: FeatureExtractor
    device: torch.device

    def __call__(self, network: nn.Module, protocol: Protocol) -> dict[str, Any]:
        """The figures of one network, the same on every process."""
        network = network.to(memory_format=torch.channels_last).to(self.device)  # type: ignore[call-overload]  # torch's stub lacks it
        seeds = list(self.images.chosen)
        if not protocol.seeded and (protocol.labels == "all" or protocol.labels.startswith("list")):
            seeds = seeds[:1]  # nothing is drawn
        match protocol:
            case KnnProtocol():
                outcomes = self._knn(network, protocol, seeds)
            case LinearProtocol():
                images = self.images
                probe = Probe(network, self.passes, images.bank, images.queries, protocol, images.chosen, images.asked)
                outcomes = [probe.outcome(seed) for seed in seeds]
            case FinetuneProtocol():
                outcomes = [self._finetune(network, protocol, seed) for seed in seeds]
            case RetrieveProtocol():
                outcomes = [self._retrieve(network, protocol)]
            case _:
                raise ValueError(f"no way to measure {protocol.id}")
        return metrics(outcomes, seeds, self.images.queries.classes)

    def _knn(self, network: nn.Module, protocol: KnnProtocol, seeds: list[int]) -> list[EvaluationResult]:
        """Every process classifies its part of the queries."""
        images = self.images
        bank = self.passes.local_features(network, images.bank, images.wanted)
        queries = self.passes.local_features(network, images.queries, images.asked)
        labels_N, classes = _labels(images.bank.labels), len(images.bank.classes)
        outcomes = []
        for seed in seeds:
            chosen = images.chosen[seed]
            own = torch.from_numpy(np.isin(bank.number_M.cpu().numpy(), chosen)).to(self.device)
            used = LocalFeatures(bank.number_M[own], bank.features_MD[own], len(chosen))
            scores_MC = predict_local(queries, used, labels_N, protocol.k, protocol.temperature, classes)
            outcomes.append(self._classified(queries.number_M, scores_MC, {"labelled_images": len(chosen)}))
        return outcomes

    def _finetune(self, network: nn.Module, protocol: FinetuneProtocol, seed: int) -> EvaluationResult:
        images, encoder = self.images, self.encoder
        assert isinstance(network, Backbone)
        loading = {name: value for name, value in self.passes.loading.items() if name != "dtype"}
        tuned, facts = finetune(
            network.state_dict(), encoder.architecture, images.bank, images.chosen[seed], encoder.image_size,
            protocol, seed, loading,
        )  # fmt: skip
        try:
            queries = self.passes.local_features(tuned, images.queries, images.asked)
        except NotFinite:
            raise FloatingPointError("fine-tuning diverged in its last step; take smaller rates") from None
        return self._classified(queries.number_M, queries.features_MD, facts)

    def _retrieve(self, network: nn.Module, protocol: RetrieveProtocol) -> EvaluationResult:
        """Every process ranks the whole bank for its part of the queries."""
        images = self.images
        queries = self.passes.local_features(network, images.queries, images.asked)
        own_M = None
        if protocol.bank == "leave-one-out":
            number_N, bank_ND = all_gather_rows(queries.number_M, queries.features_MD)
            own_M = torch.searchsorted(number_N, queries.number_M)
        else:
            bank_ND, number_N = (
                self.passes.all_features(network, images.bank, images.wanted),
                torch.from_numpy(images.wanted),
            )
        bank_labels_N = _labels(images.bank.labels)[number_N.cpu()].to(self.device)
        labels_M = _labels(images.queries.labels)[queries.number_M.cpu()].to(self.device)
        found_MK, precision_M = rank(queries.features_MD, labels_M, bank_ND, bank_labels_N, protocol.k, own_M)
        values_MV = torch.cat([found_MK.double(), precision_M[:, None]], 1)
        number_Q, values_QV = all_gather_rows(queries.number_M, values_MV)
        names = [*(f"recall@{k}" for k in protocol.k), "map"]
        values = {name: values_QV[:, place].cpu() for place, name in enumerate(names)}
        return EvaluationResult(_labels(images.queries.labels)[number_Q.cpu()], values, {"bank_images": len(bank_ND)})

    def _classified(self, number_M: Tensor, scores_MC: Tensor, facts: dict[str, Any]) -> EvaluationResult:
        """The outcome of scores that are spread over processes."""
        number_Q, scores_QC = all_gather_rows(number_M, scores_MC)
        return classified(scores_QC, _labels(self.images.queries.labels)[number_Q.cpu()], facts)


def _labels(labels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))
