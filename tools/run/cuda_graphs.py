"""Compiles backbones and, where possible, records them as CUDA graphs, so that one call launches a complete pass.

A pass of a ResNet is hundreds of small kernels. At 32 px the host needs longer to launch them than the GPU to run them.
A CUDA graph launches all of them together (torch's mode "reduce-overhead").

The tensors that a recorded pass returns lie in memory that the next recording or replay may overwrite. They are copied
at once, which takes little time beside the pass. Each recorded pass keeps its memory, for every batch size that occurs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.networks.backbone import Backbone, Features
from models.networks.block_norm import InterleavedMaps

_PASSES = 64  # variants of a pass that may be compiled; beyond torch's own limit of 8 it would run uncompiled


def compile_backbones(method: nn.Module, record: bool) -> None:
    """Compile every backbone of a method at its first use, in place, so that the names in the state dict stay.

    Args:
        record: record the passes as CUDA graphs. Not possible with several processes or with gradient accumulation,
            where the output of a graph would still be needed when the graph runs again. Not tried with views of
            several sizes.
    """
    # A pass has a variant for each size of view and batch, with and without gradient, in training and evaluation mode.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PASSES)
    for module in method.modules():
        if isinstance(module, Backbone):
            if record:
                # mypy wants no method to be replaced, but calling the module must run its hooks as before.
                module.forward = _recorded(module.forward)  # type: ignore[assignment, method-assign]
            else:
                module.compile(dynamic=False)


def _recorded(forward: Callable[[Tensor], Features]) -> Callable[[Tensor], Features]:
    """Return `forward`, compiled and recorded, with its outputs copied out of the graph's memory."""
    run = torch.compile(forward, dynamic=False, mode="reduce-overhead")

    def call(images_BCHW: Tensor) -> Features:
        pooled_BD, maps = run(images_BCHW)
        if isinstance(maps, InterleavedMaps):
            return Features(pooled_BD.clone(), maps.copied())
        return Features(pooled_BD.clone(), {name: map_BCHW.clone() for name, map_BCHW in maps.items()})

    return call
