"""What leaves a loader: the views of a batch of samples, and where CLIM asks for them, those of their partners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch on the device, owned by whoever received it.

    Attributes:
        views: one tensor [B, 3, size, size] for each `View`, normalised, channels-last in memory.
        index: [B] int64, the samples' numbers in the data set.
        label: [B] int64, -1 where unlabelled.
        seed: a number that only this global batch has, the same on every process; seeds what a method draws for itself.
        partner: the same views of the sample that each one is paired with (a sample paired with itself has none), or
            None where this step mixes nothing.
        box: [B, 4] float32, the CutMix rectangle (top, left, bottom, right) as shares of the side; no area where a
            sample has no partner. None where this step mixes nothing.
        orders: permutations [G] int64 of the global batch that the method shuffles its teachers' batches by, one for
            each of its `shuffle_keys`. Where there are none, the method draws them from `seed`.
        numbers: what the method's schedules say of this step, float32 [] each. Where there are none, the method
            computes them from its own step.
    """

    views: tuple[Tensor, ...]
    index: Tensor
    label: Tensor
    seed: int
    partner: Batch | None = None
    box: Tensor | None = None
    orders: tuple[Tensor, ...] = ()
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
