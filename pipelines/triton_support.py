"""Whether a device runs the data path's Triton kernels."""

from __future__ import annotations

from importlib.util import find_spec

import torch


def has_triton(device: torch.device) -> bool:
    """Return whether views are cut and augmented by Triton on a device: on a GPU, where Triton is installed."""
    return device.type == "cuda" and find_spec("triton") is not None
