"""What an executor is: it decodes the images of a batch and cuts the planned views out of them.

Each executor is a module with a class and an `ExecutorSpec` of facts, and one line in `choose.py`. No other file tests
for an executor's name: whoever needs a fact asks the spec. The steps are in `pipelines/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from pipelines.executors.damage import Damage
from pipelines.formats.dataset import Dataset
from pipelines.plan.plan import BatchPlan, Plan


class Executor(Protocol):
    """Decodes and cuts the views of batches.

    Attributes:
        damage: the images that could not be decoded, and which grey ones replace.
    """

    damage: Damage

    def start(self, plan: BatchPlan) -> Callable[[], list[Tensor]]:
        """Start a batch and return a function that waits for it.

        That function returns one tensor [S, 3, size, size] uint8 for each view, channels-last in memory, which the
        caller owns. It raises DecodeError where every image of the batch is damaged.
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
