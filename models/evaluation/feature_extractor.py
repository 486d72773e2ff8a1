"""Feature extraction from labelled images: evaluation passes, and epochs of random crops and flips.

With several processes, each one passes its share of every batch through the network. `extract_local` states the memory.

Shapes: M samples of this process, N of all processes, D features, B samples of a global batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.distributed import positions, sum_over_processes, world
from models.evaluation.features import extract_local
from models.networks.backbone import Features
from models.search.sharded_features import LocalFeatures, all_gather_rows
from pipelines import Batch, Dataset, View, make_loader
from pipelines.loader import Loader


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes features of data sets, always with the same view and the same loader.

    Attributes:
        view: the evaluation view.
        batch_size: images of an evaluation batch, over all processes.
        loading: keyword arguments of `make_loader` (device, dtype, rank, world, threads, loader).
    """

    view: View
    batch_size: int
    loading: Mapping[str, Any]

    def local_features(self, network: nn.Module, dataset: Dataset, number_N: NDArray[np.int64]) -> LocalFeatures:
        """Return this process's share of the features of the images with these numbers.

        Raises:
            ValueError: on every process, if some of the images cannot be decoded.
        """
        with make_loader(
            dataset, [self.view], self.batch_size, subset=number_N, shuffle=False, drop_last=False, **self.loading
        ) as loader:
            local = extract_local(network, loader, len(number_N))
            refuse_damaged(loader, local.number_M.device)
        return local

    def all_features(self, network: nn.Module, dataset: Dataset, number_N: NDArray[np.int64]) -> Tensor:
        """Return the features [N, D] of the images with these ascending numbers, on every process."""
        local = self.local_features(network, dataset, number_N)
        return all_gather_rows(local.number_M, local.features_MD)[1]

    @contextmanager
    def augmented(
        self,
        dataset: Dataset,
        number_N: NDArray[np.int64],
        size: int,
        scale: tuple[float, float],
        seed: int,
        side: int = 0,
    ) -> Iterator[Loader]:
        """Open a loader of random crops and flips of these images, in global batches of at most `size`.

        Args:
            scale: the smallest and largest share of an image that a crop shows.
            side: of the crops in pixels; 0 takes that of the evaluation view.
        """
        view = View(side or self.view.size, scale=scale, flip=0.5)
        with make_loader(dataset, [view], size, subset=number_N, drop_last=False, seed=seed, **self.loading) as loader:
            yield loader


def refuse_damaged(loader: Loader, device: torch.device) -> None:
    """Stop all processes together if the loader replaced damaged images by grey ones.

    Raises:
        ValueError: says how many images of which data set.
    """
    replaced = int(sum_over_processes(torch.tensor(loader.replaced, device=device)))
    if replaced:
        images = "image" if replaced == 1 else "images"
        raise ValueError(f"{replaced} {images} of {loader.dataset.path} cannot be decoded; convert the data set again")


@torch.no_grad()
def features_of(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Pass a global batch through a network.

    Returns:
        Pooled features [B, D] float32, labels [B] and image numbers [B] of the global batch, in its order, on every
        process.
    """
    images = batch.views[0]
    with torch.autocast(images.device.type, images.dtype, enabled=images.dtype != torch.float32):
        output = network(images)
    features_MD = (output.pooled if isinstance(output, Features) else output).float()
    if world()[1] == 1:
        return features_MD, batch.label, batch.index
    number_M = positions(len(batch.label), batch.label.device)
    features_BD, labels_B, index_B = (
        all_gather_rows(number_M, rows)[1] for rows in (features_MD, batch.label, batch.index)
    )
    return features_BD, labels_B, index_B
