"""The photometric operations, each on many pictures with one number for each picture.

Values are float32 from 0 to 255. They are not rounded between operations, while Pillow rounds to integers after each
one: a single operation is within one level of Pillow's, and a chain is the exact value that Pillow approximates.

Colour planes come first, so that each plane is contiguous and every operation reads and writes full vectors.
C = 3 colours, N = pictures, P = pixels. All functions return a new tensor and do not change their arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's convert("L")
WHITE = 255.0


def luma(x_CNP: Tensor) -> Tensor:
    """Return the brightness [N, P] of each pixel as in Pillow's mode "L", not rounded."""
    red, green, blue = x_CNP.unbind(0)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def brightness(x_CNP: Tensor, factor_N1: Tensor) -> Tensor:
    """Blend with black, as Pillow's ImageEnhance.Brightness does."""
    return (x_CNP * factor_N1).clamp_(0, WHITE)


def contrast(x_CNP: Tensor, factor_N1: Tensor) -> Tensor:
    """Blend with the picture's mean luma, as Pillow's ImageEnhance.Contrast does (which rounds the mean)."""
    mean_N1 = luma(x_CNP).mean(-1, keepdim=True)
    return torch.addcmul(mean_N1 * (1 - factor_N1), x_CNP, factor_N1).clamp_(0, WHITE)


def saturation(x_CNP: Tensor, factor_N1: Tensor) -> Tensor:
    """Blend with the grey picture, as Pillow's ImageEnhance.Color does."""
    return torch.addcmul(luma(x_CNP).mul_(1 - factor_N1), x_CNP, factor_N1).clamp_(0, WHITE)


def hue(x_CNP: Tensor, turns_N1: Tensor) -> Tensor:
    """Shift the hue of HSV by a share of the colour circle, as torchvision does, but with an unrounded hue.

    With the hue h in sixths of the circle, red at 0, channel i of a colour is low + chroma * clamp(d - 1, 0, 1), where
    d = ||h - 2i| - 3| for any h and 2i that are at most one circle apart. The shift moves the centres 2i instead of h,
    which is one number per picture and not per pixel. The hue is computed without the usual three cases: its distance
    from red is 1 + (green + blue - red - low) / chroma, on green's or on blue's side.

    Args:
        x_CNP: float32 [3, N, P].
        turns_N1: [N, 1] shift in turns of the colour circle.
    """
    red, green, blue = x_CNP.unbind(0)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high.sub_(low)
    # A grey pixel has no hue; any value will do for it, because it is multiplied by its chroma, zero.
    from_red = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-6)).add_(1)
    hue_NP = from_red.copysign_(green - blue)
    channel_C11 = torch.arange(3, device=x_CNP.device)[:, None, None]
    centre_CN1 = torch.remainder(2 * channel_C11 - 6 * turns_N1 + 3, 6) - 3
    share_CNP = (hue_NP - centre_CN1).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return share_CNP.mul_(chroma).add_(low)


def grayscale(x_CNP: Tensor) -> Tensor:
    """Return the luma in all three channels, as Pillow's convert("L") does."""
    return luma(x_CNP).expand(3, -1, -1)


def solarize(x_CNP: Tensor, threshold_N1: Tensor) -> Tensor:
    """Invert the values from the threshold on, as Pillow's ImageOps.solarize does."""
    return torch.where(x_CNP < threshold_N1, x_CNP, WHITE - x_CNP)


def permute_channels(x_CNP: Tensor, order_CN: Tensor) -> Tensor:
    """Permute channels: output channel i of picture n is its input channel order_CN[i, n]."""
    return x_CNP[order_CN, torch.arange(x_CNP.shape[1], device=x_CNP.device)]


JITTER = (brightness, contrast, saturation, hue)  # indexed by the columns in `photometric.JITTER_ORDERS`
