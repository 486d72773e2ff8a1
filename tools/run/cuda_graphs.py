"""Compiled backbones; in a single process on a GPU also recorded, so that the host starts a pass with one call.

A ResNet's step is hundreds of small kernels, and at 32 px the host needs longer to launch them than the GPU to run
them. CUDA graphs launch them together (torch's "reduce-overhead"). What a recorded pass returns lies in memory that the
next recording or replay may take: it is copied out at once, which costs little beside the pass. Memory: the passes of a
step keep theirs, for every size of batch that occurs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.networks.backbone import Backbone, Features
from models.networks.block_norm import InterleavedMaps

_PASSES = 64  # kinds of passes that are compiled: torch's own limit of 8 would leave the last ones uncompiled


def compile_backbones(method: nn.Module, record: bool) -> None:
    """Compiles every backbone at its first use, in place: names in the state dict stay.

    Args:
        record: on a GPU, as CUDA graphs. Not with several processes, nor where the gradients of several passes add up:
            there what the graphs return would be kept while they run again. Views of several sizes have not been tried.
    """
    # Each size of view and of a last batch is a pass of its own, with and without gradient, training and evaluating.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PASSES)
    for module in method.modules():
        if isinstance(module, Backbone):
            if record:
                module.forward = _recorded(module.forward)  # type: ignore[assignment, method-assign]
            else:
                module.compile(dynamic=False)


def _recorded(forward: Callable[[Tensor], Features]) -> Callable[[Tensor], Features]:
    run = torch.compile(forward, dynamic=False, mode="reduce-overhead")

    def call(images_BCHW: Tensor) -> Features:
        pooled_BD, maps = run(images_BCHW)
        if isinstance(maps, InterleavedMaps):
            return Features(pooled_BD.clone(), maps.copied())
        return Features(pooled_BD.clone(), {name: map_BCHW.clone() for name, map_BCHW in maps.items()})

    return call
