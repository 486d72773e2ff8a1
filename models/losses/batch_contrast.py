"""Contrast within the global batch: each query must find its own key. The loss of NNCLR and of MNCL's local branch.

A pure function in float32 whatever the autocast type (float64 where the rows are float64). Rows are L2-normalised
inside. Gradient flows to both sides; detach the side that must not get it.

Shapes: B samples of this process, N samples of the global batch, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.losses.cosine import unit


def matching_cross_entropy(query_BD: Tensor, key_ND: Tensor, position_B: Tensor, temperature: float) -> Tensor:
    """Return the mean over the queries of -log softmax(query . keys / temperature) at the query's own key.

    Args:
        query_BD: this process's rows.
        key_ND: rows of the global batch, gathered (with gradient where they are trained).
        position_B: the queries' positions in the global batch (`distributed.positions`).

    Returns:
        A scalar in nats; its mean over processes is that of one process with the whole batch.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; give more than 0")
    with torch.autocast(query_BD.device.type, enabled=False):
        return F.cross_entropy(unit(query_BD) @ unit(key_ND).T / temperature, position_B)
