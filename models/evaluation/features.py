"""Features of a whole data set from one evaluation pass, each process for its part, or all of them in order.

Shapes: N samples of the data set, M of this process, B samples of a batch or of a process's batches, D features, W
processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.distributed import all_gather, sum_over_processes, world
from models.networks.backbone import Features
from models.search.sharded_features import LocalFeatures, all_gather_rows
from pipelines.batch import Batch


class NotFinite(ValueError):
    """Features that are no numbers: one line; whatever they were measured by would be wrong."""


class Batches(Protocol):
    """What of a loader is used here: one pass over its samples."""

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Every module of `network` in evaluation mode, and afterwards each as it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def extract_local(network: nn.Module, loader: Batches, number: int | None = None) -> LocalFeatures:
    """Pooled features of this process's share of the samples that the loader goes through, in evaluation mode.

    Every process runs its part of the batches; a sample that the loader repeats counts once. The network runs in the
    precision of the views. Memory: twice the result, on the device, and 8 bytes for each sample of all processes.

    Args:
        network: a backbone, or any module from images [B, 3, s, s] to features [B, D].
        loader: of one view, in any order, the whole data set or a subset of it.
        number: how many samples must come out on all processes, or None.

    Raises:
        RuntimeError: the loader gave nothing, or another number of samples.
        NotFinite: there are features that are not finite; on every process.
    """
    index, features = [], []
    with evaluating(network):
        for batch in loader.epoch(0):
            images = batch.views[0]
            with torch.autocast(images.device.type, images.dtype, enabled=images.dtype != torch.float32):
                output = network(images)
            features.append((output.pooled if isinstance(output, Features) else output).float())
            index.append(batch.index)
    if not index:
        raise RuntimeError("the loader gave no samples to extract features from")
    index_B, order_B = torch.cat(index).sort(stable=True)
    rank_N, index_N = _of_all_processes(index_B)
    first_N = torch.ones_like(index_N, dtype=torch.bool)
    first_N[1:] = index_N[1:] != index_N[:-1]
    total = int(first_N.sum())
    if number is not None and total != number:
        raise RuntimeError(f"the loader gave {total} samples of {number} to the evaluation pass")
    own_B = first_N[rank_N == world()[0]]  # not one of an earlier row or process
    features_MD = torch.cat(features)[order_B[own_B]]
    refuse_broken(features_MD, total)
    return LocalFeatures(index_B[own_B], features_MD, total)


def refuse_broken(features_MD: Tensor, total: int) -> None:
    """Ends what would be measured by features that are not finite, on all processes together.

    Raises:
        NotFinite: how many of the `total` samples have such features.
    """
    broken = int(sum_over_processes((~torch.isfinite(features_MD).all(1)).sum()))
    if broken:
        raise NotFinite(
            f"the features of {broken:,} of {total:,} images are not finite: "
            "the network's weights are broken; take an earlier checkpoint"
        )


def extract(network: nn.Module, loader: Batches, number: int | None = None) -> Tensor:
    """`extract_local` of all processes, on each of them.

    Returns:
        [N, D] float32 on the device of the views, in ascending order of the samples' numbers in the data set.
    """
    local = extract_local(network, loader, number)
    return all_gather_rows(local.number_M, local.features_MD)[1]


def _of_all_processes(index_B: Tensor) -> tuple[Tensor, Tensor]:
    """Who has which sample: ranks [N] and numbers [N], ascending by number and then by rank, in the order of each."""
    longest = int(all_gather(torch.tensor(len(index_B), device=index_B.device)).max())
    index_WB = all_gather(F.pad(index_B, (0, longest - len(index_B)), value=-1))
    rank_N, place_N = (index_WB >= 0).nonzero(as_tuple=True)
    index_N, order_N = index_WB[rank_N, place_N].sort(stable=True)
    return rank_N[order_N], index_N
