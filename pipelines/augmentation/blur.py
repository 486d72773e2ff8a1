"""A Gaussian blur with a separate width for every picture.

C = 3 colours, N = pictures, T = taps from the centre of the kernel to one end.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kernel_radius(sigma: float, size: int) -> int:
    """Return the number of taps on each side of the centre, for a standard deviation and a picture's side in pixels.

    The mass of a Gaussian beyond radius + 1/2 = 3.1 sigma is 0.0019, so cutting it off changes a value by less than
    half a level of 255 on an axis. The radius is less than the side, because a border can mirror no more pixels.
    """
    return min(math.ceil(3.1 * sigma - 0.5), size - 1)


def gaussian_blur(x_CNHW: Tensor, sigma_N: Tensor, radius: int) -> Tensor:
    """Blur as OpenCV's GaussianBlur does with BORDER_REFLECT_101: 2 * radius + 1 samples of a Gaussian that sum to one.

    Pillow's GaussianBlur is another filter: three box blurs that approximate a Gaussian. torchvision samples the same
    Gaussian as here, but its kernel size is an argument.

    Args:
        x_CNHW: float32 [3, N, H, W].
        sigma_N: [N] standard deviations in pixels; 0 leaves the picture unchanged.
        radius: from `kernel_radius`, the same for all pictures.

    Returns:
        float32 [3, N, H, W].
    """
    step_T = torch.arange(radius + 1, dtype=x_CNHW.dtype, device=x_CNHW.device)
    weight_TN = torch.exp(-0.5 * (step_T[:, None] / sigma_N.clamp(min=1e-3)).square())
    weight_TN = weight_TN / (2 * weight_TN.sum(0) - weight_TN[0])
    weight_TN11 = weight_TN[:, :, None, None]
    rows = _blur_axis(F.pad(x_CNHW, (0, 0, radius, radius), mode="reflect"), weight_TN11, 2)
    return _blur_axis(F.pad(rows, (radius, radius, 0, 0), mode="reflect"), weight_TN11, 3)


def _blur_axis(padded: Tensor, weight_TN11: Tensor, axis: int) -> Tensor:
    """Convolve along one axis by shifting and adding; the kernel is symmetric, so two shifts share a weight."""
    radius = len(weight_TN11) - 1
    size = padded.shape[axis] - 2 * radius
    total = padded.narrow(axis, radius, size) * weight_TN11[0]
    pair = torch.empty_like(total)  # allocated once, because large allocations cost more than the sum
    for tap in range(1, radius + 1):
        torch.add(padded.narrow(axis, radius - tap, size), padded.narrow(axis, radius + tap, size), out=pair)
        total.addcmul_(pair, weight_TN11[tap])
    return total
