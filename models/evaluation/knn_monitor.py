"""The kNN monitor: how well the features of a run classify held-out images while it trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from models.distributed import sum_over_processes
from models.evaluation.features import extract_local
from models.evaluation.input_settings import input_settings
from models.evaluation.knn import hits, predict_local
from models.evaluation.protocols.knn import KnnProtocol
from pipelines import Dataset, View, make_loader


class KnnMonitor:
    """Weighted kNN on the student's pooled features: a labelled bank of training images votes on held-out images.

    Each process classifies its share of the held-out images. Memory of each of W processes: its shares of both sets'
    features in float32, twice (bank + held out) / W x D x 4 bytes while they are computed, and one chunk of the bank.
    All of it is freed after each measurement.

    Args:
        train: the training images; at most `bank` of those with a label, spread evenly, are the bank.
        held_out: the images to classify; those without a label are left out.
        view: the evaluation view.
        batch_size: images of a forward pass, over all processes.
        loading: keyword arguments of `make_loader` (device, rank, world, threads ...).

    Attributes:
        protocol: the protocol of the numbers that `measure` returns.

    Raises:
        ValueError: one of the two has no labelled image, or their classes differ.
    """

    # The loading keywords are passed on as they are; mypy cannot check them against make_loader's (arg-type below).
    def __init__(
        self, train: Dataset, held_out: Dataset, view: View, bank: int, batch_size: int = 512, **loading: object
    ) -> None:
        if train.classes != held_out.classes:
            raise ValueError(
                f"{train.path} and {held_out.path} have different classes; give --val-data of the same ones"
            )
        labelled = [np.flatnonzero(dataset.labels >= 0) for dataset in (train, held_out)]
        if min(len(number_N) for number_N in labelled) == 0:
            raise ValueError(f"kNN needs labels in both {train.path} and {held_out.path}")
        labelled[0] = labelled[0][np.linspace(0, len(labelled[0]) - 1, min(bank, len(labelled[0]))).round().astype(int)]
        inputs = input_settings(view, **loading)  # type: ignore[arg-type]  # passed on as they are
        usual = KnnProtocol.for_bank(len(labelled[0]))
        self.protocol = replace(usual, precision=inputs.precision, pixels=inputs.pixels)
        self._classes = len(train.classes)
        self._labels = [torch.from_numpy(dataset.labels.astype(np.int64)) for dataset in (train, held_out)]
        self._loaders = [
            make_loader(
                dataset,
                [view],
                batch_size,
                subset=number_N,
                shuffle=False,
                drop_last=False,
                **loading,  # type: ignore[arg-type]  # passed on as they are
            )
            for dataset, number_N in zip(
                (train, replace(held_out, mean=train.mean, std=train.std)), labelled, strict=True
            )
        ]

    def measure(self, backbone: nn.Module) -> float:
        """Return the top-1 accuracy in percent; every process must call it, and every process gets the result."""
        bank, queries = (extract_local(backbone, loader) for loader in self._loaders)
        bank_label_N, label_N = (label_N.to(queries.features_MD.device) for label_N in self._labels)
        k, temperature = self.protocol.k, self.protocol.temperature
        scores_MC = predict_local(queries, bank, bank_label_N, k, temperature, self._classes)
        right = hits(scores_MC, label_N[queries.number_M], 1).sum()
        return 100 * float(sum_over_processes(right)) / queries.total

    def close(self) -> None:
        """Release both loaders."""
        for loader in self._loaders:
            loader.close()
