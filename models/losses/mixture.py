"""CutMix with rectangles given as shares of the side, so that one rectangle means the same at every resolution.

CutMix: arXiv 1905.04899, algorithm A1; used as in CLIM (arXiv 2011.02697): the partner's view is pasted into the
anchor's query view, and lambda is the share of the anchor that is kept.

Shapes: B images, s pixels of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cutmix(anchor: Tensor, partner: Tensor, box_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of each partner into its anchor.

    The published code cuts the same pixels out of every resolution, which makes lambda wrong on all but the first. Here
    the rectangle is rounded to pixels at each resolution, and lambda is the share that was really kept.

    Args:
        anchor, partner: views [B, 3, s, s].
        box_B4: (top, left, bottom, right) as shares of the side.

    Returns:
        The mixed views [B, 3, s, s], and kept_B float32: lambda, the share of the anchor's pixels; 1 where the
        rectangle is empty.
    """
    side = anchor.shape[-1]
    top, left, bottom, right = (box_B4 * side).round().T[..., None]
    pixel_s = torch.arange(side, device=anchor.device)
    rows_Bs = (pixel_s >= top) & (pixel_s < bottom)
    columns_Bs = (pixel_s >= left) & (pixel_s < right)
    inside = rows_Bs[:, None, :, None] & columns_Bs[:, None, None, :]
    kept_B = 1 - (rows_Bs.sum(1) * columns_Bs.sum(1)).float() / side**2
    return torch.where(inside, partner, anchor), kept_B
