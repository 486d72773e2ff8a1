"""Backbones compiled for training: batch norms, activations and sums between convolutions become few kernels.

Only training passes are compiled. Evaluation looks at batches of other sizes a few times in a run, which would cost
more to compile than it saves, and would compile while the loader's threads work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.backbone import Backbone, Features

_PASSES = 64  # kinds of passes that are compiled: torch's own limit of 8 would leave the last ones uncompiled


def compile_backbones(method: nn.Module) -> None:
    """Compiles every backbone at its first training pass, in place: names in the state dict stay."""
    # Each size of view is a pass of its own, with and without gradient.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PASSES)
    for module in method.modules():
        if isinstance(module, Backbone):
            _compile(module)


def _compile(backbone: Backbone) -> None:
    plain, fused = backbone.forward, torch.compile(backbone.forward, dynamic=False)

    def forward(images_BCHW: Tensor) -> Features:
        return (fused if backbone.training else plain)(images_BCHW)

    backbone.forward = forward  # type: ignore[method-assign]  # an instance's own: the class stays as it is
