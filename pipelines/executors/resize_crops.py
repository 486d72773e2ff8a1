"""Crop, resize and flip many images of different sizes at once, as two matrix products, on any device.

Resizing along one axis is a matrix product, so

    view = rows @ box @ columns^T

with one pair of matrices for each sample, computed on the device from four integers (`area_filter.py`,
`pillow_filters.py`); a flip reverses the rows of the column matrix. Pillow resizes the rows of the box first and rounds
in between; OpenCV's area resize rounds once.

Boxes are padded to the largest one of a batch (rounded up, so that few shapes occur); pixels outside have no share.
S = samples, D = side of the view, H, W = padded height and width of a box, P = pixels of all images.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors.area_filter import area_shares
from pipelines.executors.pillow_filters import pillow_weights, rounded

PAD = 32  # box sides are rounded up to a multiple of it


def padded(box_S4: NDArray[np.integer]) -> tuple[int, int]:
    """Return a height and a width that hold every box [S, 4] of a batch, computed on the host without a device sync."""
    height, width = (int(side) for side in box_S4[:, 2:].max(axis=0, initial=1))
    return -(-height // PAD) * PAD, -(-width // PAD) * PAD


def resize_crops(
    pixels_P3: Tensor,
    first_S: Tensor,
    stride_S: Tensor,
    box_S4: Tensor,
    flip_S: Tensor,
    size: int,
    resize: str,
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
        resize: the filter, one of `RESIZE`.
        sides: H and W, from `padded`.

    Returns:
        uint8 [S, 3, D, D], channels-last in memory.
    """
    top_S, left_S, height_S, width_S = box_S4.unbind(1)
    high, wide = sides
    if resize == "area":
        bilinear_S = (height_S < size) | (width_S < size)
        rows_SDH = area_shares(height_S, size, high, bilinear_S)
        columns_SDW = area_shares(width_S, size, wide, bilinear_S)
    else:
        rows_SDH = pillow_weights(height_S, size, high, resize)
        columns_SDW = pillow_weights(width_S, size, wide, resize)
    columns_SDW = torch.where(flip_S[:, None, None], columns_SDW.flip(1), columns_SDW)

    # Where the padding would leave the box, the box's last pixel is read, so no address lies outside the memory.
    row_SH = top_S[:, None] + torch.minimum(torch.arange(high, device=box_S4.device), height_S[:, None] - 1)
    column_SW = left_S[:, None] + torch.minimum(torch.arange(wide, device=box_S4.device), width_S[:, None] - 1)
    index_SHW = (first_S[:, None] + row_SH * stride_S[:, None])[:, :, None] + column_SW[:, None, :]
    box_SHWC = pixels_P3[index_SHW]

    samples = len(first_S)
    box_SHCW = box_SHWC.transpose(2, 3).to(columns_SDW.dtype, memory_format=torch.contiguous_format)
    if resize == "area":
        half_SDCW = torch.bmm(rows_SDH, box_SHCW.reshape(samples, high, 3 * wide))
        view_SDCD = torch.bmm(half_SDCW.view(samples, size * 3, wide), columns_SDW.transpose(1, 2))
        view_SDCD = view_SDCD.round_().clamp_(0, 255)
    else:
        half_SHCD = rounded(torch.bmm(box_SHCW.reshape(samples, high * 3, wide), columns_SDW.transpose(1, 2)))
        view_SDCD = rounded(torch.bmm(rows_SDH, half_SHCD.view(samples, high, 3 * size)))
    view = view_SDCD.view(samples, size, 3, size).permute(0, 2, 1, 3)
    return view.to(torch.uint8, memory_format=torch.channels_last)
