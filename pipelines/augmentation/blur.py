"""A Gaussian blur with its own width for every picture.

C = 3 colours, N = pictures, T = taps of one side of the kernel and its centre.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kernel_radius(sigma: float, size: int) -> int:
    """Taps beside the centre, so that what a kernel of this sigma leaves out is under half a level of 255 on an axis.

    The mass beyond radius + 1/2 = 3.1 sigma is 0.0019. A picture can be mirrored by its own size at most.
    """
    return min(math.ceil(3.1 * sigma - 0.5), size - 1)


def gaussian_blur(x_CNHW: Tensor, sigma_N: Tensor, radius: int) -> Tensor:
    """OpenCV's GaussianBlur with BORDER_REFLECT_101: sampled Gaussian of 2 * radius + 1 taps that sum to one.

    Pillow's GaussianBlur is another filter, three box blurs that approximate a Gaussian. torchvision samples the same
    Gaussian as here, with a kernel size given by hand.

    Args:
        x_CNHW: float32 [3, N, H, W].
        sigma_N: standard deviations in pixels; 0 gives the picture back unchanged.
        radius: from `kernel_radius`, the same for all pictures.
    """
    step_T = torch.arange(radius + 1, dtype=x_CNHW.dtype, device=x_CNHW.device)
    weight_TN = torch.exp(-0.5 * (step_T[:, None] / sigma_N.clamp(min=1e-3)).square())
    weight_TN = weight_TN / (2 * weight_TN.sum(0) - weight_TN[0])
    weight_TN11 = weight_TN[:, :, None, None]
    rows = _blur_axis(F.pad(x_CNHW, (0, 0, radius, radius), mode="reflect"), weight_TN11, 2)
    return _blur_axis(F.pad(rows, (radius, radius, 0, 0), mode="reflect"), weight_TN11, 3)


def _blur_axis(padded: Tensor, weight_TN11: Tensor, axis: int) -> Tensor:
    """Shift and add: the kernel is symmetric, so two shifted pictures share a weight."""
    radius = len(weight_TN11) - 1
    size = padded.shape[axis] - 2 * radius
    total = padded.narrow(axis, radius, size) * weight_TN11[0]
    pair = torch.empty_like(total)  # large new memory costs more than the sum that goes into it
    for tap in range(1, radius + 1):
        torch.add(padded.narrow(axis, radius - tap, size), padded.narrow(axis, radius + tap, size), out=pair)
        total.addcmul_(pair, weight_TN11[tap])
    return total
