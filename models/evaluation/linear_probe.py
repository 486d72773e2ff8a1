"""The linear probe of an encoder, from images to a result: features cached or augmented, one rate or a sweep.

With several processes, each has all features and trains the same classifiers on them: a classifier is so small that
sharing its work would cost more than it saves.

Shapes: N images of the bank, M test images, D features, H classifiers, R learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.evaluation.feature_extractor import FeatureExtractor, features_of, refuse_damaged
from models.evaluation.features import evaluating
from models.evaluation.label_split import held_out_split
from models.evaluation.linear_heads import Heads, LabelledBatch, rates_and_blindness, train_heads, train_on_cached
from models.evaluation.result import EvaluationResult, classified
from pipelines import Dataset

if TYPE_CHECKING:
    from models.evaluation.protocols.linear import LinearProtocol


class Probe:
    """Trains classifiers on `network`'s features of the bank and measures them on the queries.

    Features of centred squares do not depend on the seed and are computed once.

    Args:
        labelled: for each seed that will be measured, the numbers of the images of the bank whose labels are used.
        query_M: the numbers of the test images.
    """

    def __init__(
        self,
        network: nn.Module,
        extractor: FeatureExtractor,
        bank: Dataset,
        queries: Dataset,
        protocol: LinearProtocol,
        labelled: Mapping[int, NDArray[np.int64]],
        query_M: NDArray[np.int64],
    ) -> None:
        self._network, self._extractor, self._bank = network, extractor, bank
        self._protocol, self._labelled = protocol, labelled
        self._classes = len(bank.classes)
        sweeping = len(protocol.lr) > 1
        self._held_out = {
            seed: held_out_split(_only(bank.labels, number_N), protocol.held_out, seed) if sweeping else None
            for seed, number_N in labelled.items()
        }
        needed = self._held_out.values() if protocol.augment else labelled.values()
        none = np.zeros(0, dtype=np.int64)
        self._number_N = np.unique(np.concatenate([none, *(number_N for number_N in needed if number_N is not None)]))
        self._features_ND = extractor.all_features(network, bank, self._number_N) if len(self._number_N) else None
        self._test_MD = extractor.all_features(network, queries, query_M)
        self._top1_of_epoch: list[float] = []
        self._test_label_M = torch.from_numpy(queries.labels[query_M].astype(np.int64))

    def result(self, seed: int) -> EvaluationResult:
        """Train with a seed and measure; of a sweep, at the rate that the held-out labels choose.

        Raises:
            FloatingPointError: every classifier diverged.
        """
        rates, held_out = self._protocol.lr, self._held_out[seed]
        self._top1_of_epoch.clear()
        heads = self._on_views(seed) if self._protocol.augment else self._on_cached(seed)
        usable = [head for head in range(len(rates)) if heads.finite(head)]
        if not usable:
            tried = ", ".join(f"{rate:g}" for rate in rates)
            raise FloatingPointError(f"the linear probe diverged at learning rate {tried}; take a smaller one")
        results = {head: classified(heads.scores(self._test_MD, head), self._test_label_M) for head in usable}
        labelled: dict[str, Any] = {"labelled_images": len(self._labelled[seed])}
        if self._protocol.best_epoch:
            top1 = max(self._top1_of_epoch)
            id, epoch = f"{self._protocol.id}-best-epoch", self._top1_of_epoch.index(top1) + 1
            labelled["best_epoch"] = {"protocol": id, "epoch": epoch, "top1": top1}
        if held_out is None:
            return EvaluationResult(results[0].labels_N, results[0].values, labelled)
        table: list[dict[str, Any]] = []
        for head, rate in enumerate(rates):
            values = results[head].values if head in results else {}
            row = {"lr": rate} | {name: _percent(value_M) for name, value_M in values.items()}
            table.append(row | {"held_out_top1": self._held_out_top1(heads, head + len(rates), held_out)})
        best = max(usable, key=lambda head: (table[head]["held_out_top1"] or -1.0, -rates[head]))
        facts = {"lr": rates[best], "rates": table} | labelled
        return EvaluationResult(results[best].labels_N, results[best].values, facts)

    def _after_epoch(self, heads: Heads) -> None:
        """Note the accuracy on the test set, if the best epoch is asked for."""
        if self._protocol.best_epoch:
            value_M = classified(heads.scores(self._test_MD, 0), self._test_label_M).values["top1"]
            self._top1_of_epoch.append(_percent(value_M) if heads.finite(0) else 0.0)

    def _held_out_top1(self, heads: Heads, head: int, held_out: NDArray[np.int64]) -> float | None:
        """Return the accuracy in percent of a classifier on labels that it did not see; None where it diverged."""
        if not heads.finite(head):
            return None
        label_N = torch.from_numpy(self._bank.labels[held_out].astype(np.int64))
        top1 = _percent(classified(heads.scores(self._cached(held_out), head), label_N).values["top1"])
        return top1 if math.isfinite(top1) else None

    def _on_cached(self, seed: int) -> Heads:
        """Return classifiers trained on features that were computed once."""
        number_N, held_out = self._labelled[seed], self._held_out[seed]
        features_ND = self._cached(number_N)
        label_N = torch.from_numpy(self._bank.labels[number_N].astype(np.int64))
        hidden_N = None if held_out is None else torch.from_numpy(np.isin(number_N, held_out)).to(features_ND.device)
        return train_on_cached(features_ND, label_N, self._classes, self._protocol, seed, hidden_N, self._after_epoch)

    def _on_views(self, seed: int) -> Heads:
        """Return classifiers trained on new crops in every epoch; one pass of the network serves a whole sweep."""
        protocol, number_N, held_out = self._protocol, self._labelled[seed], self._held_out[seed]
        size = min(protocol.batch_size, len(number_N))
        device = self._test_MD.device
        hidden = None if held_out is None else torch.from_numpy(held_out).to(device)
        rates, blind = rates_and_blindness(protocol, held_out is not None)
        generator = torch.Generator().manual_seed(seed)
        with (
            self._extractor.augmented(
                self._bank, number_N, size, protocol.crop_scale, seed, protocol.crop_size
            ) as loader,
            evaluating(self._network),
        ):

            def batches(epoch: int) -> Iterator[LabelledBatch]:
                for batch in loader.epoch(epoch):
                    features_BD, label_B, index_B = features_of(self._network, batch)
                    hidden_B = None if hidden is None else torch.isin(index_B, hidden)
                    yield LabelledBatch(features_BD, label_B, hidden_B)

            width = self._test_MD.shape[1]
            heads = Heads(rates, width, self._classes, protocol, loader.steps, generator, device, blind)
            train_heads(heads, batches, protocol.epochs, self._after_epoch)
            refuse_damaged(loader, device)
        return heads

    def _cached(self, number_N: NDArray[np.int64]) -> Tensor:
        """Return the cached features [N, D] of some images."""
        assert self._features_ND is not None
        if len(number_N) == len(self._number_N):
            return self._features_ND
        row_N = torch.from_numpy(np.searchsorted(self._number_N, number_N)).to(self._features_ND.device)
        return self._features_ND[row_N]


def _only(labels: NDArray[np.int64], number_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels with -1 for all samples but those with the given numbers."""
    only = np.full_like(labels, -1)
    only[number_N] = labels[number_N]
    return only


def _percent(share_N: Tensor) -> float:
    return round(100 * float(share_N.mean()), 4)
