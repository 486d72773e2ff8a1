"""The photometric operations, each on many pictures with one number per picture.

Values are float32 from 0 to 255 and are not rounded between operations, where Pillow rounds to whole levels after each
one: a single operation stays within one level of Pillow's, a chain is the exact value that Pillow approximates.

Colour planes come first, so that each is one run of memory and every operation reads and writes whole vectors.
C = 3 colours, N = pictures, P = pixels. All functions return a new tensor and leave their arguments alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's convert("L")
WHITE = 255.0


def luma(x_CNP: Tensor) -> Tensor:
    """Brightness of each pixel as in Pillow's "L", [N, P], not rounded."""
    red, green, blue = x_CNP.unbind(0)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def brightness(x_CNP: Tensor, factor_N1: Tensor) -> Tensor:
    """Pillow's ImageEnhance.Brightness: a blend with black."""
    return (x_CNP * factor_N1).clamp_(0, WHITE)


def contrast(x_CNP: Tensor, factor_N1: Tensor) -> Tensor:
    """Pillow's ImageEnhance.Contrast: a blend with the picture's mean luma (which Pillow rounds to a whole level)."""
    mean_N1 = luma(x_CNP).mean(-1, keepdim=True)
    return torch.addcmul(mean_N1 * (1 - factor_N1), x_CNP, factor_N1).clamp_(0, WHITE)


def saturation(x_CNP: Tensor, factor_N1: Tensor) -> Tensor:
    """Pillow's ImageEnhance.Color: a blend with the grey picture."""
    return torch.addcmul(luma(x_CNP).mul_(1 - factor_N1), x_CNP, factor_N1).clamp_(0, WHITE)


def hue(x_CNP: Tensor, turns_N1: Tensor) -> Tensor:
    """Shifts the hue of HSV by a share of the colour circle, as torchvision does, but with an unrounded hue.

    With hue h in sixths of the circle, red at 0, channel i of a colour is low + chroma * clamp(d - 1, 0, 1), where
    d = ||h - 2i| - 3| for any h and 2i that are at most one circle apart. The shift moves the centres 2i instead of h:
    one number per picture, not per pixel. The hue itself comes without a choice between three cases: its distance
    from red is 1 + (green + blue - red - low) / chroma, on green's side or on blue's.
    """
    red, green, blue = x_CNP.unbind(0)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high.sub_(low)
    # A grey pixel has no hue; whatever comes out for it is multiplied by its chroma, zero.
    from_red = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-6)).add_(1)
    hue_NP = from_red.copysign_(green - blue)
    channel_C11 = torch.arange(3, device=x_CNP.device)[:, None, None]
    centre_CN1 = torch.remainder(2 * channel_C11 - 6 * turns_N1 + 3, 6) - 3
    share_CNP = (hue_NP - centre_CN1).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return share_CNP.mul_(chroma).add_(low)


def grayscale(x_CNP: Tensor) -> Tensor:
    """Pillow's convert("L") in all three channels."""
    return luma(x_CNP).expand(3, -1, -1)


def solarize(x_CNP: Tensor, threshold_N1: Tensor) -> Tensor:
    """Pillow's ImageOps.solarize: values below the threshold stay, the others are inverted."""
    return torch.where(x_CNP < threshold_N1, x_CNP, WHITE - x_CNP)


def permute_channels(x_CNP: Tensor, order_CN: Tensor) -> Tensor:
    """Output channel i of picture n is its input channel order_CN[i, n]."""
    return x_CNP[order_CN, torch.arange(x_CNP.shape[1], device=x_CNP.device)]


JITTER = (brightness, contrast, saturation, hue)  # at the numbers that `photometric.JITTER_ORDERS` calls them by
