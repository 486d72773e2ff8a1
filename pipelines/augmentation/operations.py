"""Which photometric operations a view can have, and how its values are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.augmentation.blur import kernel_radius
from pipelines.plan.views import View


@dataclass(frozen=True)
class Operations:
    """Which operations a view can have at all, known before any number is drawn; the others are never run.

    Attributes:
        jitter: the operations of ColorJitter with a strength above zero, named by their columns of the numbers.
        grayscale, solarize, permute: whether the operation has a probability above zero.
        blur_radius: taps on each side of the Gaussian's centre, in pixels; 0 = no blur.
    """

    jitter: tuple[int, ...]
    grayscale: bool
    blur_radius: int
    solarize: bool
    permute: bool

    @classmethod
    def of(cls, view: View) -> Operations:
        """Return the operations that a view can have."""
        jitter = tuple(i for i in range(4) if view.jitter[i] > 0 and view.jitter_p > 0)
        radius = kernel_radius(view.blur_sigma[1], view.size) if view.blur_p > 0 else 0
        return cls(jitter, view.grayscale_p > 0, radius, view.solarize_p > 0, view.permute_p > 0)


class Normalization(NamedTuple):
    """The normalised value of a level v, 0 to 255, is v * scale + shift; float32 [3] on the device of the views."""

    scale_C: Tensor
    shift_C: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Normalization:
        """Return the normalisation by mean and deviation of red, green and blue, on the scale 0 to 1."""
        deviation = 255 * torch.tensor(std, dtype=torch.float32, device=device)
        return cls(1 / deviation, -255 * torch.tensor(mean, dtype=torch.float32, device=device) / deviation)
