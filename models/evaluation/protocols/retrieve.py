"""Protocol `retrieve`: recall and mean average precision, by `models/evaluation/retrieval.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from models.evaluation.protocol import Protocol
from models.evaluation.protocols.knn import check_k
from models.evaluation.result import EvaluationResult
from models.evaluation.retrieval import answerable, rank
from models.evaluation.task import LabelledImages, Task
from models.options import option
from models.search.sharded_features import all_gather_rows

_GIVEN, _LEAVE_ONE_OUT = "given", "leave-one-out"


@dataclass(frozen=True, kw_only=True)
class RetrieveProtocol(Protocol):
    """Images of the query's class among the nearest of the bank, by the cosine of their features.

    recall@k is the share of queries with an image of their class among the k nearest; mAP is the mean over queries of
    the average precision of the whole ranking. Queries whose class has no other image in the bank are left out, and
    counted.

    Attributes:
        k: the values of k in recall@k.
        bank: "given"; or "leave-one-out" where the bank is the queries, each of which is then searched among the rest.
    """

    name: ClassVar[str] = "retrieve"
    summary: ClassVar[str] = "recall and mean average precision"
    metric_titles: ClassVar[Mapping[str, str]] = {r"recall@\d+": "{} %", "map": "mAP %"}
    seeded: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    leaves_query_out: ClassVar[bool] = True

    k: tuple[int, ...] = option((1, 5, 10), "values of k in recall@k", above=0)
    distance: str = "cosine"
    ranking: str = "whole bank"
    queries: str = "those whose class has another image in the bank"
    bank: str = _GIVEN
    images: str = "whole shorter side, centred"
    source: str = "recall@k as in metric learning (Jegou et al., PAMI 2011); average precision as in scikit-learn"

    @classmethod
    def chosen(cls, given: Mapping[str, Any], images: LabelledImages, pretraining: Mapping[str, str]) -> Protocol:
        check_k(max(given.get("k", (0,))), images.bank_size - 1 if images.same else images.bank_size)
        return cls(bank=_LEAVE_ONE_OUT if images.same else _GIVEN, **given)

    @property
    def id(self) -> str:
        alone = f"-{_LEAVE_ONE_OUT}" if self.bank == _LEAVE_ONE_OUT else ""
        return f"retrieve-r{','.join(map(str, self.k))}-map-{self.distance}{alone}-{self._suffix()}"

    def measure(self, network: nn.Module, task: Task, seeds: Sequence[int]) -> list[EvaluationResult]:
        """Each process ranks the whole bank for its share of the queries; every seed has the same result.

        Raises:
            ValueError: no query has another image of its class in the bank.
        """
        queries, images = task.query_features(network), task.images
        own_M = None
        if self.bank == _LEAVE_ONE_OUT:
            number_N, bank_ND = all_gather_rows(queries.number_M, queries.features_MD)
            own_M = torch.searchsorted(number_N, queries.number_M)
        else:
            number_N = torch.from_numpy(images.bank_N)
            bank_ND = task.extractor.all_features(network, images.bank, images.bank_N)
        bank_label_N = task.bank_labels()[number_N.cpu()].to(task.device)
        label_M = task.query_labels()[queries.number_M.cpu()].to(task.device)
        found_MK, precision_M = rank(queries.features_MD, label_M, bank_ND, bank_label_N, self.k, own_M)
        values_MV = torch.cat([found_MK.double(), precision_M[:, None]], 1)
        number_Q, values_QV = all_gather_rows(queries.number_M, values_MV)
        names = [*(f"recall@{k}" for k in self.k), "map"]
        values = {name: values_QV[:, column].cpu() for column, name in enumerate(names)}
        label_Q = task.query_labels()[number_Q.cpu()]
        kept_Q = answerable(label_Q, bank_label_N.cpu(), self.bank == _LEAVE_ONE_OUT)
        if not kept_Q.any():
            raise ValueError("no query's class has another image in the bank, so that nothing can be found")
        values = {name: value_Q[kept_Q] for name, value_Q in values.items()}
        facts = {"bank_images": len(bank_ND), "queries_left_out": int((~kept_Q).sum())}
        return [EvaluationResult(label_Q[kept_Q], values, facts)] * len(seeds)
