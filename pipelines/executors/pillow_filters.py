"""The weights of Pillow's bilinear and bicubic resize as matrices of one axis, on any device with float64.

`pillow_kernels.py` says what Pillow does. Weights are whole numbers in units of 2^-22, so that sums of pixels by them
are exact in float64, and so are the views.
S = samples, D = side of the view.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ONE = 2.0**22


def pillow_weights(length_S: Tensor, size: int, longest: int, resize: str) -> Tensor:
    """Return the matrices of one axis: float64 [S, size, longest], rows sum to 2^22, columns from `length_S` on are 0.

    Args:
        length_S: int64 [S], side of each box along this axis.
        size: D.
        longest: the padded side.
        resize: "bilinear" or "bicubic".
    """
    length_S11 = length_S[:, None, None].to(torch.float64)
    output_D1 = torch.arange(size, device=length_S.device, dtype=torch.float64)[:, None]
    pixel_I = torch.arange(longest, device=length_S.device, dtype=torch.float64)
    scale_S11 = length_S11 / size
    narrow_S11 = 1 / scale_S11.clamp(min=1)
    x_SDI = ((pixel_I - (output_D1 + 0.5) * scale_S11 + 0.5) * narrow_S11).abs()
    share_SDI = cubic(x_SDI) if resize == "bicubic" else (1 - x_SDI).clamp(min=0)
    share_SDI = torch.where(pixel_I < length_S11, share_SDI, 0.0)
    weight_SDI = share_SDI / share_SDI.sum(2, keepdim=True) * _ONE
    return (weight_SDI + torch.copysign(torch.full_like(weight_SDI, 0.5), weight_SDI)).trunc()


def cubic(x: Tensor) -> Tensor:
    """Return the cubic of Keys with a = -0.5 at distances x of at least 0; it is 0 from 2 on."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def rounded(total: Tensor) -> Tensor:
    """Return weighted sums of pixels as levels: rounded, halves upwards, and clipped to 0 to 255."""
    return total.div_(_ONE).add_(0.5).floor_().clamp_(0, 255)
