"""What a stage of `tools.gpu_check` gets to know: where it runs, at which sizes, and where its data are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines import Dataset, open_dataset
from tools.benchmarks.loader import Images, converted
from tools.benchmarks.measure import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """The circumstances of a check.

    Attributes:
        settings: device, threads and repeats, as benchmarks take them.
        rehearsal: whether this is a run on the CPU at tiny sizes, whose numbers mean nothing.
        scratch: a folder for what stages share, which goes when the check is over.
    """

    settings: Settings
    rehearsal: bool
    scratch: Path

    def size(self, full: T, tiny: T) -> T:
        """Return the value for a GPU, or the one for a rehearsal."""
        return tiny if self.rehearsal else full

    def small_images(self) -> Dataset:
        """Return generated images of 32 px, as CIFAR-10's."""
        return self._images(32, self.size(12_000, 64))

    def photos(self) -> Dataset:
        """Return generated photos of 500 px."""
        return self._images(self.size(500, 48), self.size(2_048, 40))

    def _images(self, side: int, number: int) -> Dataset:
        """Return a data set that the first stage to need it has generated."""
        made = self.scratch / f"{side}.beton"
        return open_dataset(made) if made.exists() else converted(Images("", side, number, 0, ()), self.scratch)
