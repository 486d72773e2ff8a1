"""What an executor is: it decodes the images of a batch and, on a CPU, cuts the planned views out of them.

Each executor is a module with a class and an `ExecutorSpec` of facts, and one line in `choose.py`. No other file tests
for an executor's name: whoever needs a fact asks the spec. The steps are in `pipelines/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors.damage import Damage
from pipelines.formats.dataset import Dataset
from pipelines.plan.plan import BatchPlan, Plan


class Decoded(NamedTuple):
    """The decoded images of a batch on a GPU, from which the augmentation cuts the views.

    Attributes:
        pixels_P3: uint8 [P, 3], the rows of pixels of images, one image after the other.
        first_S: int64 [S], the first pixel of each sample's image.
        width_S: [S], the width of each sample's image.
    """

    pixels_P3: Tensor
    first_S: NDArray[np.int64]
    width_S: NDArray[np.integer]


# What an executor makes of a batch: for each view uint8 [S, 3, size, size], channels-last in memory, or where Triton
# cuts, the decoded images.
Images = list[Tensor] | Decoded


def as_views(images: Images) -> list[Tensor]:
    """Return the views of a batch whose executor has cut them."""
    assert isinstance(images, list), "decoded images are cut by Triton alone"
    return images


class Executor(Protocol):
    """Decodes batches and cuts their views, or leaves the cutting to the augmentation.

    Attributes:
        damage: the images that could not be decoded, and which grey ones replace.
    """

    damage: Damage

    def start(self, plan: BatchPlan) -> Callable[[], Images]:
        """Start a batch and return a function that waits for it.

        That function returns the views, which the caller owns, or decoded images where `has_triton`. It raises
        DecodeError where every image of the batch is damaged.
        """
        ...

    def close(self) -> None:
        """Wait for batches under way and release images and threads."""
        ...


@dataclass(frozen=True)
class ExecutorSpec:
    """The facts of an executor that others need before it is made.

    Attributes:
        name: what `--loader` calls it.
        filters: the filters of `RESIZE` that it offers. With one filter all executors give the same pixels of an
            image's decode, to within one level.
        make: given data set, plan, device and decoding threads, returns the executor. Raises ModuleNotFoundError where
            its package is missing, and ValueError where memory does not suffice.
        package: the package that it needs; "" = none.
        gpu_formats: names of the on-disk formats for which `--loader auto` prefers it when batches go to a GPU.
        slow_start: whether making one takes long, so that fuzzing uses it on fewer cases.
    """

    name: str
    filters: tuple[str, ...]
    make: Callable[[Dataset, Plan, torch.device, int], Executor]
    package: str = ""
    gpu_formats: frozenset[str] = frozenset()
    slow_start: bool = False

    def installed(self) -> bool:
        """Whether the package that the executor needs is installed."""
        if not self.package:
            return True
        try:
            return find_spec(self.package) is not None
        except (ModuleNotFoundError, ValueError):  # no parent package; ValueError: sys.modules holds None for it
            return False
