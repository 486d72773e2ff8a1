"""The heads on a backbone during training: projectors, predictors, and CGH's hypercolumn neck. Discarded afterwards.

Shapes: B images, D features, C channels, H x W pixels of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LastNorm = Literal["none", "affine", "plain"]


def mlp(
    dims: Sequence[int],
    batch_norm: bool = False,
    last_batch_norm: LastNorm = "none",
    bias: bool = True,
    last_bias: bool | None = None,
    norm: type[nn.BatchNorm1d] = nn.BatchNorm1d,
) -> nn.Sequential:
    """Return linear layers of the given widths with ReLU between them.

    The heads of the published methods, with a backbone of width d:

        MoCo v2, CLIM, ReSSL, MSVQ, CGH   mlp([d, hidden, out])
        BYOL, both heads                  mlp([d, hidden, out], batch_norm=True)
        SimSiam, ICCL-B projector         mlp([d, d, d, out], batch_norm=True, last_batch_norm="plain", bias=False)
        SimSiam, ICCL-B predictor         mlp([out, hidden, out], batch_norm=True, bias=False, last_bias=True)
        ICCL-A, both heads                mlp([d, hidden, hidden, out], batch_norm=True, bias=False)
        NNCLR, MNCL projector             mlp([d, hidden, hidden, out], batch_norm=True, last_batch_norm="affine")
        NNCLR, MNCL predictor             mlp([out, hidden, out], batch_norm=True)

    Args:
        dims: widths, inputs first; at least two.
        batch_norm: whether there is a batch norm before every ReLU.
        last_batch_norm: the batch norm after the last layer: "none", "affine" (with gain and bias) or "plain"
            (without).
        bias: whether the linear layers have biases.
        last_bias: the same for the last layer; None takes `bias`.
        norm: the batch norm's class; `sync_norm.SyncBatchNorm1d` uses the statistics of all processes.

    Raises:
        ValueError: fewer than two widths.
    """
    if len(dims) < 2:
        raise ValueError(f"a head needs at least two widths, inputs and outputs; got {list(dims)}")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims[:-1]):
        layers.append(nn.Linear(inputs, outputs, bias=bias))
        if batch_norm:
            layers.append(norm(outputs))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(dims[-2], dims[-1], bias=bias if last_bias is None else last_bias))
    if last_batch_norm != "none":
        layers.append(norm(dims[-1], affine=last_batch_norm == "affine"))
    return nn.Sequential(*layers)


class HypercolumnNeck(nn.Module):
    """CGH's hypercolumn branch as in its published code.

    The maps of several stages, resized to the size of the last one (bilinear, align_corners False, no antialias) and
    concatenated on channels, then a 1x1 convolution, batch norm, ReLU, the mean over the map, and an MLP. There are no
    weights per stage and no detach: its loss reaches every stage.

    Args:
        widths: channels of every stage of the backbone (`Backbone.widths`).
        middle: channels after the 1x1 convolution; CGH takes the backbone's pooled width.
        hidden, out: widths of the MLP.
        stages: names of the stages, shallow first.

    Raises:
        ValueError: the backbone has no stage of such a name.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        middle: int,
        hidden: int,
        out: int,
        stages: Sequence[str] = ("layer3", "layer4"),
    ) -> None:
        super().__init__()
        unknown = [stage for stage in stages if stage not in widths]
        if unknown:
            raise ValueError(f"hypercolumn: the backbone has no stage {', '.join(unknown)}; it has {', '.join(widths)}")
        self.stages = tuple(stages)
        self.conv = nn.Conv2d(sum(widths[stage] for stage in stages), middle, 1, bias=False)
        self.bn = nn.BatchNorm2d(middle)
        self.mlp = mlp([middle, hidden, out])

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings [B, out], not normalised, of stage maps [B, C, H, W]."""
        embedding_BD: Tensor = self.mlp(self.mixed(self.hypercolumn(maps)).mean((2, 3)))
        return embedding_BD

    def hypercolumn(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return [B, C, H, W]: at each pixel of the last map, the channels of all stages at that position."""
        size = maps[self.stages[-1]].shape[-2:]
        return torch.cat([self._resized(maps[stage], size) for stage in self.stages], 1)

    def mixed(self, column_BCHW: Tensor) -> Tensor:
        """Return [B, middle, H, W]: hypercolumns after the 1x1 convolution, before their mean is taken."""
        return F.relu(self.bn(self.conv(column_BCHW)), inplace=True)

    @staticmethod
    def _resized(x_BCHW: Tensor, size: torch.Size) -> Tensor:
        """Return a map [B, C, *size]."""
        if x_BCHW.shape[-2:] == size:
            return x_BCHW
        return F.interpolate(x_BCHW, size=list(size), mode="bilinear", align_corners=False)
