"""A batch as a loader hands it out: the views of its samples and, in CLIM's mixing steps, those of their partners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch on the device; it belongs to whoever received it.

    Attributes:
        views: one tensor [B, 3, size, size] for each `View`, normalised, channels-last in memory.
        index: [B] int64, the samples' indices in the data set.
        label: [B] int64, -1 where unlabelled.
        seed: a number of this global batch alone, the same on every process; seeds random numbers of the methods.
        partner: the same views of each sample's partner; a sample without candidates is its own partner. None where
            this step mixes nothing.
        box: [B, 4] float32, the CutMix rectangle (top, left, bottom, right) in shares of the side; its area is 0 where
            a sample has no partner. None where this step mixes nothing.
        orders: permutations [G] int64 of the global batch that the method shuffles its teachers' batches by, one for
            each of its `shuffle_keys`. If empty, the method draws them from `seed`.
        numbers: the values of the method's schedules at this step, float32 [] each. If empty, the method computes them.
    """

    views: tuple[Tensor, ...]
    index: Tensor
    label: Tensor
    seed: int
    partner: Batch | None = None
    box: Tensor | None = None
    orders: tuple[Tensor, ...] = ()
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
