"""MNCL's local branch: images cut into quarters, and the features of the quarters averaged in pairs.

The split, encode and combine of Fast-MoCo (arXiv 2207.08220). Pure functions.

Shapes: B samples, C channels, H x W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

PAIRS = tuple(combinations(range(4), 2))


def quarters(images_BCHW: Tensor) -> Tensor:
    """Return [4B, C, H/2, W/2]: four blocks of B, first down the left column of the image, then down the right one."""
    return torch.cat([quarter for half in images_BCHW.chunk(2, 3) for quarter in half.chunk(2, 2)])


def pair_means(features_4BD: Tensor) -> Tensor:
    """Return [6B, D] from [4B, D]: the mean of each pair of quarters, six blocks of B in the order of `PAIRS`."""
    blocks = features_4BD.chunk(4)
    return torch.cat([(blocks[first] + blocks[second]) / 2 for first, second in PAIRS])


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Context manager: restore the running statistics of the network's batch norms on exit."""
    buffers = [
        buffer
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for buffer in module.buffers(recurse=False)
    ]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, kept in zip(buffers, before, strict=True):
            buffer.copy_(kept)
