"""The linear probe of an encoder, from images to an outcome: features cached or augmented, one rate or a sweep.

Every process of several has all features and trains the same classifiers on them: a classifier is so small that sharing
its work would cost more than it saves. Shapes: N images, M test images, D features, H classifiers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.evaluation.feature_extractor import FeatureExtractor, features_of, refuse_damaged
from models.evaluation.features import evaluating
from models.evaluation.label_split import held_out_split
from models.evaluation.linear_heads import Heads, Labelled, sweep_of, train_heads, train_on_cached
from models.evaluation.protocols import LinearProtocol
from models.evaluation.result import EvaluationResult, classified
from pipelines import Dataset


class Probe:
    """Trains classifiers on `network`'s features of the bank and measures them on the queries.

    What does not depend on the seed, features of whole images, is computed once.

    Args:
        chosen: numbers of the bank's images whose labels are used, for each seed that will be asked for.
        queries_M: numbers of the test images.
    """

    def __init__(
        self,
        network: nn.Module,
        passes: FeatureExtractor,
        bank: Dataset,
        queries: Dataset,
        protocol: LinearProtocol,
        chosen: dict[int, NDArray[np.int64]],
        queries_M: NDArray[np.int64],
    ) -> None:
        self._network, self._passes, self._bank, self._protocol, self._chosen = network, passes, bank, protocol, chosen
        self._classes = len(bank.classes)
        self._sweeping = len(protocol.lr) > 1
        self._hidden = {
            seed: held_out_split(_only(bank.labels, numbers), protocol.held_out, seed) if self._sweeping else None
            for seed, numbers in chosen.items()
        }
        needed = self._hidden.values() if protocol.augment else chosen.values()
        empty = np.zeros(0, dtype=np.int64)
        self._number_N = np.unique(np.concatenate([empty, *(numbers for numbers in needed if numbers is not None)]))
        self._features_ND = passes.all_features(network, bank, self._number_N) if len(self._number_N) else None
        self._test_MD = passes.all_features(network, queries, queries_M)
        self._test_labels_M = torch.from_numpy(queries.labels[queries_M].astype(np.int64))

    def outcome(self, seed: int) -> EvaluationResult:
        """Trains with a seed and measures.

        Raises:
            FloatingPointError: every classifier diverged.
        """
        rates, number_N, hidden = self._protocol.lr, self._chosen[seed], self._hidden[seed]
        heads = self._on_views(seed) if self._protocol.augment else self._on_cached(seed)
        sound = [heads.finite(head) for head in range(len(rates))]
        if not any(sound):
            tried = ", ".join(f"{rate:g}" for rate in rates)
            raise FloatingPointError(f"the linear probe diverged at learning rate {tried}; take a smaller one")
        outcomes = [
            classified(heads.scores(self._test_MD, head), self._test_labels_M) if sound[head] else None
            for head in range(len(rates))
        ]
        table: list[dict[str, Any]] = [
            {"lr": rate} | ({name: _percent(value) for name, value in found.values.items()} if found else {})
            for rate, found in zip(rates, outcomes, strict=True)
        ]
        best = 0
        if hidden is not None:
            held_ND, labels_N = self._rows(hidden), torch.from_numpy(self._bank.labels[hidden].astype(np.int64))
            for place, row in enumerate(table):
                blind = place + len(rates)
                scores = heads.scores(held_ND, blind)
                right = (
                    float("-inf") if not heads.finite(blind) else _percent(classified(scores, labels_N).values["top1"])
                )
                row["held_out_top1"] = right if math.isfinite(right) else None
            usable = [place for place in range(len(rates)) if sound[place]]
            best = max(usable, key=lambda place: (table[place]["held_out_top1"] or -1.0, -rates[place]))
        found = outcomes[best]
        assert found is not None
        facts = {"lr": rates[best], "rates": table, "labelled_images": len(number_N)}
        return EvaluationResult(
            found.labels_N, found.values, facts if hidden is not None else {"labelled_images": len(number_N)}
        )

    def _on_cached(self, seed: int) -> Heads:
        number_N, hidden = self._chosen[seed], self._hidden[seed]
        features_ND = self._rows(number_N)
        labels_N = torch.from_numpy(self._bank.labels[number_N].astype(np.int64))
        hidden_N = None if hidden is None else torch.from_numpy(np.isin(number_N, hidden)).to(features_ND.device)
        return train_on_cached(features_ND, labels_N, self._classes, self._protocol, seed, hidden_N)

    def _on_views(self, seed: int) -> Heads:
        """Classifiers of which every epoch sees other crops; all of a sweep by the same pass through the network."""
        protocol, number_N, hidden = self._protocol, self._chosen[seed], self._hidden[seed]
        size = min(protocol.batch_size, len(number_N))
        device = self._test_MD.device
        hidden_numbers = None if hidden is None else torch.from_numpy(hidden).to(device)
        rates, blind = sweep_of(protocol, hidden is not None)
        generator = torch.Generator().manual_seed(seed)
        with (
            self._passes.augmented(self._bank, number_N, size, protocol.crop_scale, seed) as loader,
            evaluating(self._network),
        ):

            def batches(epoch: int) -> Iterator[Labelled]:
                for batch in loader.epoch(epoch):
                    features_BD, labels_B, index_B = features_of(self._network, batch)
                    yield Labelled(
                        features_BD, labels_B, None if hidden_numbers is None else torch.isin(index_B, hidden_numbers)
                    )

            width = self._test_MD.shape[1]
            heads = Heads(rates, width, self._classes, protocol, loader.steps, generator, device, blind)
            train_heads(heads, batches, protocol.epochs)
            refuse_damaged(loader, device)
        return heads

    def _rows(self, number_N: NDArray[np.int64]) -> Tensor:
        """Cached features of some images."""
        assert self._features_ND is not None
        if len(number_N) == len(self._number_N):
            return self._features_ND
        place_N = torch.from_numpy(np.searchsorted(self._number_N, number_N)).to(self._features_ND.device)
        return self._features_ND[place_N]


def _only(labels: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels of some samples; -1 for all others."""
    only = np.full_like(labels, -1)
    only[numbers] = labels[numbers]
    return only


def _percent(value_N: Tensor) -> float:
    return round(100 * float(value_N.mean()), 4)
