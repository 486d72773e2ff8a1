"""The interface of every backbone: an image encoder with pooled features and named stage maps.

Shapes: B images, D pooled features, C channels, H x W pixels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

#: Makes the batch norm of a number of channels; split or synchronised statistics enter here.
BatchNorm = Callable[[int], nn.Module]


class Features(NamedTuple):
    """The features of a batch.

    Attributes:
        pooled: [B, D].
        maps: the outputs of named stages, [B, C, H, W] each. They are references into the forward pass, not copies,
            except where batch norms are split: then each is a copy, made when it is read.
    """

    pooled: Tensor
    maps: Mapping[str, Tensor]


class Backbone(nn.Module):
    """An image encoder.

    Attributes:
        dim: D, the width of the pooled features.
        widths: the channels of each named stage.
    """

    dim: int
    widths: dict[str, int]

    def forward(self, images_BCHW: Tensor) -> Features:
        """Return pooled features and stage maps of normalised images [B, 3, H, W]."""
        raise NotImplementedError
