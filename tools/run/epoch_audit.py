"""Proof that an epoch trained on every image of its plan exactly once, cheap enough to stay on.

Each image's number is hashed and the hashes of all trained images are summed (modulo 2^64), on the device and without
waiting for it. At the end, the sum over all processes must be that of the plan. An image that is missing, doubled or of
another epoch's place changes it, whatever the order; two wrongs cancel with a probability of about 2^-64.

Cost: a handful of operations on the [B] numbers of each batch; once an epoch one hash for each image that is left out,
or that was trained on before the run resumed; once a run one for each image.

N = images of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.distributed import sum_over_processes
from pipelines.plan.plan import Plan

_CHUNK = 1 << 20  # images hashed at a time
_FIRST, _SECOND = 0x1E37_79B9_7F4A_7C15, 0x3F58_476D_1CE4_E5B9  # odd: multiplying by them loses nothing
_WRAP = 1 << 64


class EpochCoverage:
    """Counts the images of an epoch, from the batch where it begins or resumes.

    Args:
        plan: of the loader that makes the batches; any process's part of it.
        device: of the batches.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._sum = torch.zeros((), dtype=torch.int64, device=device)
        self._whole: int | None = None
        self.start(0, 0)

    def start(self, epoch: int, first_batch: int) -> None:
        """The next images are those of `epoch` from global batch `first_batch` on."""
        self._epoch, self._first, self._batches = epoch, first_batch, 0
        self._sum.zero_()

    def add(self, index_B: Tensor) -> None:
        """Counts a batch of this process."""
        self._sum += _hash(index_B).sum()
        self._batches += 1

    def right(self) -> bool:
        """Whether all processes together had the images that the plan has there, each once. All must call it."""
        size = self._plan.batch_size
        places = (self._first * size, min((self._first + self._batches) * size, self._plan.size))
        return int(sum_over_processes(self._sum)) % _WRAP == self._expected(*places)

    def _expected(self, start: int, stop: int) -> int:
        """Of positions `start` to `stop` of the epoch, by way of the smaller of these and the others."""
        inside = [(start, stop)]
        outside = [(0, start), (stop, self._plan.size)]
        if 2 * (stop - start) <= self._plan.size:
            return self._of(inside)
        if self._whole is None:
            numbers = self._plan.subset
            every = _chunks([(0, self._plan.size)])
            self._whole = sum(_total(place if numbers is None else numbers[place]) for place in every) % _WRAP
        return (self._whole - self._of(outside)) % _WRAP

    def _of(self, stretches: list[tuple[int, int]]) -> int:
        return sum(_total(self._plan.order(self._epoch, place)) for place in _chunks(stretches)) % _WRAP


def _hash(index_B: Tensor) -> Tensor:
    """int64 numbers to int64 hashes; products wrap around."""
    mixed = (index_B + 1) * _FIRST
    mixed = (mixed ^ (mixed >> 29)) * _SECOND
    return mixed ^ (mixed >> 32)


def _total(numbers: NDArray[np.int64]) -> int:
    return int(_hash(torch.from_numpy(np.ascontiguousarray(numbers))).sum())


def _chunks(stretches: list[tuple[int, int]]) -> Iterator[NDArray[np.int64]]:
    for start, stop in stretches:
        for first in range(start, stop, _CHUNK):
            yield np.arange(first, min(first + _CHUNK, stop), dtype=np.int64)
