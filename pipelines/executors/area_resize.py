"""Crop, area-resize and flip many images of different sizes at once, as two matrix products, on any device.

Resizing along one axis is a matrix product: row d of the matrix holds the share that every pixel of the box has in
output pixel d. So

    view = rows @ box @ columns^T

with one pair of matrices for each sample, computed on the device from four integers; a flip reverses the rows of the
column matrix. The shares are those of OpenCV's INTER_AREA, which FFCV's kernel uses:

    both axes shrunk    the overlap of input pixel i with the output pixel's interval [d scale, (d + 1) scale), divided
                        by scale
    an axis enlarged    the same formula: the interval now touches at most two pixels, and OpenCV's "bilinear in area
                        mode" gives them just these shares
    one of each         OpenCV uses the bilinear rule for both axes: along the shrunk axis everything behind the first
                        pixel counts for the second

All three are differences of one function: how much of the output pixel lies before input pixel i.
Boxes are padded to the largest one of a batch (rounded up, so that few shapes occur); pixels outside have no share.
S = samples, D = side of the view, H, W = padded height and width of a box, P = pixels of all images.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PAD = 32  # box sides are rounded up to a multiple of it


def padded(box_S4: NDArray[np.integer]) -> tuple[int, int]:
    """Return a height and a width that hold every box [S, 4] of a batch, computed on the host without a device sync."""
    height, width = (int(side) for side in box_S4[:, 2:].max(axis=0))
    return -(-height // PAD) * PAD, -(-width // PAD) * PAD


def resize_crops(
    pixels_P3: Tensor,
    first_S: Tensor,
    stride_S: Tensor,
    box_S4: Tensor,
    flip_S: Tensor,
    size: int,
    sides: tuple[int, int],
) -> Tensor:
    """Return one view of every sample.

    Args:
        pixels_P3: uint8 [P, 3], the rows of pixels of all images, one after the other.
        first_S: int64 [S], each image's first pixel.
        stride_S: int64 [S], each image's width.
        box_S4: int64 [S, 4], (top, left, height, width) inside the image.
        flip_S: bool [S], whether the view is mirrored left to right.
        size: D.
        sides: H and W, from `padded`.

    Returns:
        uint8 [S, 3, D, D], channels-last in memory.
    """
    top_S, left_S, height_S, width_S = box_S4.unbind(1)
    high, wide = sides
    bilinear_S = (height_S < size) | (width_S < size)
    rows_SDH = area_shares(height_S, size, high, bilinear_S)
    columns_SDW = area_shares(width_S, size, wide, bilinear_S)
    columns_SDW = torch.where(flip_S[:, None, None], columns_SDW.flip(1), columns_SDW)

    # Where the padding would leave the box, the box's last pixel is read, so no address lies outside the memory.
    row_SH = top_S[:, None] + torch.minimum(torch.arange(high, device=box_S4.device), height_S[:, None] - 1)
    column_SW = left_S[:, None] + torch.minimum(torch.arange(wide, device=box_S4.device), width_S[:, None] - 1)
    index_SHW = (first_S[:, None] + row_SH * stride_S[:, None])[:, :, None] + column_SW[:, None, :]
    box_SHWC = pixels_P3[index_SHW]

    samples = len(first_S)
    box_SHCW = box_SHWC.transpose(2, 3).to(torch.float32).reshape(samples, high, 3 * wide)
    half_SDCW = torch.bmm(rows_SDH, box_SHCW)
    view_SDCD = torch.bmm(half_SDCW.view(samples, size * 3, wide), columns_SDW.transpose(1, 2))
    view = view_SDCD.view(samples, size, 3, size).permute(0, 2, 1, 3).round_().clamp_(0, 255)
    return view.to(torch.uint8, memory_format=torch.channels_last)


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
