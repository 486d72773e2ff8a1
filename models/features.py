"""Features of a whole data set, in its order, from one evaluation pass over all processes.

Shapes: N samples of the data set, B samples of a batch, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones import Features
from models.distributed import gather
from pipelines.batch import Batch


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
def extract(network: nn.Module, loader: Batches, number: int | None = None) -> Tensor:
    """Pooled features of every sample that the loader goes through, by the network in evaluation mode.

    Every process runs its part of the batches and gets the features of all; a sample that the loader repeats counts
    once. The network runs in the precision of the views. Memory: twice the result, on the device.

    Args:
        network: a backbone, or any module from images [B, 3, s, s] to features [B, D].
        loader: of one view, in any order, the whole data set or a subset of it.
        number: how many samples must come out, or None.

    Returns:
        [N, D] float32 on the device of the views, in ascending order of the samples' numbers in the data set.

    Raises:
        RuntimeError: the loader gave nothing, or another number of samples.
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
    index_N, features_ND = _of_all_processes(torch.cat(index), torch.cat(features))
    index_N, order_N = torch.sort(index_N, stable=True)
    first_N = torch.ones_like(index_N, dtype=torch.bool)
    first_N[1:] = index_N[1:] != index_N[:-1]
    order_N = order_N[first_N]
    if number is not None and len(order_N) != number:
        raise RuntimeError(f"the loader gave {len(order_N)} samples of {number} to the evaluation pass")
    return features_ND[order_N]


def _of_all_processes(index_B: Tensor, features_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers and features of all processes, whose parts may differ in length by what the last batch lacks."""
    longest = int(gather(torch.tensor([len(index_B)], device=index_B.device)).max())
    missing = longest - len(index_B)
    index_N = gather(F.pad(index_B, (0, missing), value=-1))
    features_ND = gather(F.pad(features_BD, (0, 0, 0, missing)))
    there_N = index_N >= 0
    return index_N[there_N], features_ND[there_N]
