"""Everything that is measured of a run while it trains: feature quality always, kNN accuracy where there are labels."""

from __future__ import annotations

from os import PathLike
from typing import Any

from models.evaluation.held_out import find_held_out
from models.evaluation.knn_monitor import KnnMonitor
from models.evaluation.quality_monitor import QualityMonitor
from models.method import Method
from pipelines import Dataset, View
from pipelines.memory import release_memory


class Monitors:
    """The quality monitor of the training images and the kNN monitor of held-out ones; a context manager.

    Args:
        train: the training images.
        method: the method that trains on them; the quality monitor augments by its first view.
        view: the evaluation view.
        held_out: labelled images; None takes the split that was converted with the training images, if there is one.
        bank: the largest number of labelled training images in the kNN bank.
        check: how many held-out images are verified, as in `open_dataset`.
        loading: keyword arguments of `make_loader`.

    Attributes:
        held_out: the images of the kNN monitor, and how they were found.

    Raises:
        ValueError: see `KnnMonitor`.
    """

    def __init__(
        self,
        train: Dataset,
        method: Method,
        view: View,
        held_out: str | PathLike[str] | None,
        bank: int,
        check: str = "sample",
        **loading: object,
    ) -> None:
        self.quality = QualityMonitor(train, view, method.views[0], **loading)  # type: ignore[arg-type]  # passed on as they are
        self.knn: KnnMonitor | None = None
        self.held_out = find_held_out(train, held_out, check)
        if self.held_out.dataset is not None:
            self.knn = KnnMonitor(train, self.held_out.dataset, view, bank, **loading)  # type: ignore[arg-type]

    @property
    def notes(self) -> list[str]:
        """Lines for the user about the held-out images, and about what is not measured."""
        missing = [] if self.knn else ["no labelled images for the kNN monitor; give them with --val-data"]
        return [*self.held_out.notes, *missing]

    def measure(self, method: Method, batch_size: int) -> dict[str, Any]:
        """Return a row of metrics of the method now; every process must call it, and every process gets the row.

        Args:
            batch_size: the training's batch size, for the age of the queue.
        """
        row: dict[str, Any] = self.quality.measure(method, batch_size)
        if self.knn is not None:
            row |= {"knn_top1": round(self.knn.measure(method.encoder()), 4), "knn_protocol": self.knn.protocol.id}
        release_memory()
        return row

    def __enter__(self) -> Monitors:
        return self

    def __exit__(self, *error: object) -> None:
        self.quality.close()
        if self.knn is not None:
            self.knn.close()
