"""Two measures of collapse that need no labels: how evenly features are spread, and how many directions they use.

Shapes: N samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def feature_spread(features_ND: Tensor) -> float:
    """Return the standard deviation of the L2-normalised features, averaged over dimensions, times sqrt(D).

    It is 1 where the features cover the sphere evenly and 0 where all of them are one vector (SimSiam, arXiv
    2011.10566, section 4.1).
    """
    unit_ND = normalize(features_ND.double())
    return float(unit_ND.std(0).mean() * unit_ND.shape[1] ** 0.5)


def effective_rank(features_ND: Tensor) -> float:
    """Return RankMe (arXiv 2210.02885, equation 1): the exponential of the singular values' entropy, from 1 to D."""
    share = torch.linalg.svdvals(features_ND.double())
    share = share / share.sum().clamp_min(torch.finfo(torch.float64).tiny) + torch.finfo(torch.float32).eps
    return float(torch.exp(-(share * share.log()).sum()))
