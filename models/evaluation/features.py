"""Features of a data set from one evaluation pass: each process its share, or all of them in order on every process.

Shapes: N samples of the data set, M of this process, B samples of a batch or of a process's batches, D features,
W processes.
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
    """Features are infinite or not a number, so nothing can be measured with them. The message is one line."""


class Batches(Protocol):
    """The part of a loader's interface that an evaluation pass needs: one pass over its samples."""

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module of `network` into evaluation mode, and restore the mode of each one on exit."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def extract_local(network: nn.Module, loader: Batches, number: int | None = None) -> LocalFeatures:
    """Compute the pooled features of this process's share of a loader's samples, in evaluation mode.

    Every process passes its share of the batches; a sample that the loader repeats counts once. The network computes in
    the number type of the views. Memory: twice the result on the device, and 8 bytes for each sample of all processes.

    Args:
        network: a backbone, or any module from images [B, 3, s, s] to features [B, D].
        loader: yields one view, in any order, of a whole data set or of a subset.
        number: how many samples all processes together must have; None does not check.

    Raises:
        RuntimeError: the loader gave no samples, or another number of them.
        NotFinite: on every process, if some features are not finite.
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
    own_B = first_N[rank_N == world()[0]]  # false for a repetition of an earlier row, or of another process's
    features_MD = torch.cat(features)[order_B[own_B]]
    refuse_broken(features_MD, total)
    return LocalFeatures(index_B[own_B], features_MD, total)


def refuse_broken(features_MD: Tensor, total: int) -> None:
    """Stop all processes together if some features are not finite.

    Args:
        total: the number of samples of all processes, for the message.

    Raises:
        NotFinite: says how many samples have such features.
    """
    broken = int(sum_over_processes((~torch.isfinite(features_MD).all(1)).sum()))
    if broken:
        raise NotFinite(
            f"the features of {broken:,} of {total:,} images are not finite: "
            "the network's weights are broken; take an earlier checkpoint"
        )


def extract(network: nn.Module, loader: Batches, number: int | None = None) -> Tensor:
    """Return the features of `extract_local` from all processes, on every process.

    Returns:
        [N, D] float32 on the device of the views, in ascending order of the samples' numbers in the data set.
    """
    local = extract_local(network, loader, number)
    return all_gather_rows(local.number_M, local.features_MD)[1]


def _of_all_processes(index_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return ranks [N] and numbers [N] of all samples, ascending by number, then rank, then each rank's order."""
    longest = int(all_gather(torch.tensor(len(index_B), device=index_B.device)).max())
    index_WB = all_gather(F.pad(index_B, (0, longest - len(index_B)), value=-1))
    rank_N, column_N = (index_WB >= 0).nonzero(as_tuple=True)
    index_N, order_N = index_WB[rank_N, column_N].sort(stable=True)
    return rank_N[order_N], index_N
