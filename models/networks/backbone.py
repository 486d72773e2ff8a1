"""What every backbone is: an image encoder with pooled features and named stage maps.

Shapes: B images, D pooled features, C channels, H x W pixels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

#: Makes the batch norm of so many channels; the place where split or synchronised statistics enter.
BatchNorm = Callable[[int], nn.Module]


class Features(NamedTuple):
    """What a backbone sees in a batch.

    Attributes:
        pooled: [B, D].
        maps: the outputs of named stages, [B, C, H, W] each. References into the forward pass, not copies, but where
            batch norms are split: then each is a copy, made when it is read.
    """

    pooled: Tensor
    maps: Mapping[str, Tensor]


class Backbone(nn.Module):
    """An image encoder. `dim` is the width of the pooled features, `widths` the channels of each named stage."""

    dim: int
    widths: dict[str, int]

    def forward(self, images_BCHW: Tensor) -> Features:
        """Pooled features and stage maps of [B, 3, H, W] normalised images."""
        raise NotImplementedError
