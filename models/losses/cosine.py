"""Distances between predictions and their targets: the losses of BYOL and SimSiam, without negatives.

Pure functions in float32 whatever the autocast type (float64 where the prediction is float64). Rows are L2-normalised
inside. No gradient reaches the target.

Shapes: B samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(rows_BD: Tensor) -> Tensor:
    """Return L2-normalised rows, in float32 or float64."""
    return F.normalize(rows_BD if rows_BD.dtype == torch.float64 else rows_BD.float(), dim=1)


def negative_cosine(prediction_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Return SimSiam's loss (arXiv 2011.10566, equation 1): the mean over the batch of -cos(p, q), from -1 to 1."""
    with torch.autocast(prediction_BD.device.type, enabled=False):
        return -(unit(prediction_BD) * unit(target_BD.detach())).sum(1).mean()


def squared_distance(prediction_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Return BYOL's loss (arXiv 2006.07733, equation 2): the mean over the batch of |p/|p| - q/|q||^2, from 0 to 4."""
    return 2 + 2 * negative_cosine(prediction_BD, target_BD)
