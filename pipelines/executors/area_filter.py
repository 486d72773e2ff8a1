"""The weights of OpenCV's area resize (INTER_AREA), which FFCV's kernel uses, as matrices of one axis on any device.

Row d of a matrix holds the share that every pixel of the box has in output pixel d:

    both axes shrunk    the overlap of input pixel i with the output pixel's interval [d scale, (d + 1) scale), divided
                        by scale
    an axis enlarged    the same formula: the interval now touches at most two pixels, and OpenCV's "bilinear in area
                        mode" gives them just these shares
    one of each         OpenCV uses the bilinear rule for both axes: along the shrunk axis everything behind the first
                        pixel counts for the second

All three are differences of one function: how much of the output pixel lies before input pixel i.
S = samples, D = side of the view.
"""

from __future__ import annotations

import torch
from torch import Tensor


def area_shares(length_S: Tensor, size: int, longest: int, bilinear_S: Tensor) -> Tensor:
    """Return the matrices of one axis: float32 [S, size, longest], rows sum to 1, columns from `length_S` on are 0.

    Args:
        length_S: int64 [S], side of each box along this axis.
        size: D.
        longest: the padded side.
        bilinear_S: bool [S], whether this or the other side of the box is enlarged.
    """
    length_S11 = length_S[:, None, None]
    output_D1 = torch.arange(size, device=length_S.device)[:, None]
    edge_I = torch.arange(longest + 1, device=length_S.device)
    # How much of output pixel d lies before edge i: i / scale - d, computed in integers up to the last division.
    before_SDI = (edge_I * size - output_D1 * length_S11).clamp_(min=0).to(torch.float32) / length_S11
    # The first pixel as OpenCV's arithmetic computes it. By rounding it may be the one before, which has no share in
    # the interval and then gets all of it.
    size_S11 = torch.full_like(length_S11, size, dtype=torch.float64)  # number / tensor would round twice
    first_SD1 = (output_D1 * (size_S11 / length_S11).reciprocal_()).floor_()
    behind_SDI = (edge_I >= first_SD1 + 2) | ((edge_I > first_SD1) & (before_SDI == 0))
    all_SDI = (bilinear_S[:, None, None] & behind_SDI) | (edge_I >= length_S11)
    return torch.where(all_SDI, 1.0, before_SDI.clamp_(max=1)).diff(dim=2)
