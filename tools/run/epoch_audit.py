"""Proves after each epoch that every image of its plan was trained on exactly as often as planned (usually once).

The cost is low enough to leave it on.

Each image number is hashed, and the hashes of all images that were trained on are summed modulo 2^64, on the device and
without waiting for it. At the end of the epoch the sum over all processes must equal the sum over the plan. The order
of the images does not matter. A missing, repeated or foreign image changes the sum, and two such errors cancel each
other with a probability of about 2^-64 only.

Cost: a few operations on the [B] image numbers of each batch. At the end of an epoch, one hash for each image that the
epoch left out (the remainder of an incomplete batch) or that was trained on before the run resumed. Once in a run, one
hash for each image.

B images of a batch, N images of a piece of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.distributed import sum_over_processes
from pipelines.plan.plan import Plan
from tools.command_line import Failure

_PIECE = 1 << 20  # positions that are hashed at a time
_FIRST, _SECOND = 0x1E37_79B9_7F4A_7C15, 0x3F58_476D_1CE4_E5B9  # odd, so that multiplying modulo 2^64 is one-to-one
_WRAP = 1 << 64

Interval = tuple[int, int]  # positions of an epoch, from the first up to but without the second


class EpochCoverage:
    """Sums the hashes of the images of an epoch, from the batch with which the epoch starts or resumes.

    Args:
        plan: the plan of the loader that makes the batches.
        device: the device of the batches.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._sum = torch.zeros((), dtype=torch.int64, device=device)
        self._sum_of_all: int | None = None  # over all positions of the plan, once it is needed
        self.start(0, 0)

    def start(self, epoch: int, first_batch: int) -> None:
        """Forget what was counted; the next batch is the global batch `first_batch` of `epoch`."""
        self._epoch, self._first, self._batches = epoch, first_batch, 0
        self._sum.zero_()

    def add(self, index_B: Tensor) -> None:
        """Count a batch of this process, given by its image numbers."""
        self._sum += _hash(index_B).sum()
        self._batches += 1

    def check(self, step: int) -> None:
        """Require that `complete` holds. Every process must call it.

        Args:
            step: the step of the run, for the message.

        Raises:
            Failure: an image was missed, repeated or foreign.
        """
        if not self.complete():
            raise Failure(
                f"up to step {step}, epoch {self._epoch} did not train on every image of its plan exactly once; "
                "report this as a bug"
            )

    def complete(self) -> bool:
        """Return whether all processes together had each image of these batches exactly once."""
        size = self._plan.batch_size
        start, stop = self._first * size, min((self._first + self._batches) * size, self._plan.positions)
        return int(sum_over_processes(self._sum)) % _WRAP == self._expected(start, stop)

    def _expected(self, start: int, stop: int) -> int:
        """Return the sum of hashes over positions `start` to `stop` of the epoch.

        If that is most of the epoch, subtract the sum over the other positions from the sum over all. The latter does
        not depend on the epoch, which only permutes the images, and is computed once.
        """
        if 2 * (stop - start) <= self._plan.size:
            return self._sum_over([(start, stop)])
        size = self._plan.size
        if stop > size:  # the last batch is filled up with repeated images
            return (self._expected(start, size) + self._sum_over([(size, stop)])) % _WRAP
        if self._sum_of_all is None:
            numbers = self._plan.subset
            pieces = _pieces([(0, self._plan.size)])
            self._sum_of_all = sum(_sum(piece if numbers is None else numbers[piece]) for piece in pieces) % _WRAP
        return (self._sum_of_all - self._sum_over([(0, start), (stop, size)])) % _WRAP

    def _sum_over(self, intervals: list[Interval]) -> int:
        return sum(_sum(self._plan.order(self._epoch, piece)) for piece in _pieces(intervals)) % _WRAP


def _hash(index_B: Tensor) -> Tensor:
    """Return an int64 hash of each int64 number. Products and sums wrap around, as is meant."""
    mixed = (index_B + 1) * _FIRST
    mixed = (mixed ^ (mixed >> 29)) * _SECOND
    return mixed ^ (mixed >> 32)


def _sum(numbers_N: NDArray[np.int64]) -> int:
    return int(_hash(torch.from_numpy(np.ascontiguousarray(numbers_N))).sum())


def _pieces(intervals: list[Interval]) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of the intervals in arrays of bounded length."""
    for start, stop in intervals:
        for first in range(start, stop, _PIECE):
            yield np.arange(first, min(first + _PIECE, stop), dtype=np.int64)
