"""Data sets and a loader without files, for tests of eval.py from its command line to what it writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import eval as evaluation
from pipelines import Dataset

CLASSES = ("a", "b", "c")


def dataset(
    path: str, number: int = 90, seed: int = 0, classes: tuple[str, ...] = CLASSES, unlabelled: int = 0
) -> Dataset:
    labels = np.random.default_rng(seed).integers(0, max(1, len(classes)), number)
    labels[: number if not classes else unlabelled] = -1
    sides = np.full(number, 16, np.int32)
    return Dataset(
        path=Path(path), format="beton", number=number, classes=classes, heights=sides, widths=sides, labels=labels,
        mean=(0.1,) * 3, std=(0.9,) * 3, checksum=f"c{seed}", name="fake", table=None, card={},  # type: ignore[arg-type]
    )  # fmt: skip


class FakeLoader:
    """Each class has a colour; pictures are noisy squares of it."""

    normalised_by: list[tuple[float, float, float]] = []  # noqa: RUF012
    replaced = 0  # damaged images

    def __init__(self, data: Dataset, views: Any, batch_size: int, **options: Any) -> None:
        assert not options["shuffle"]
        assert not options["drop_last"]
        assert (views[0].size, views[0].center, views[0].scale) == (16, 0.875, None)
        self.dataset, self.batch_size, self.subset = data, batch_size, options["subset"]
        self.normalised_by.append(data.mean)

    def epoch(self, epoch: int) -> Iterator[Any]:
        colours = torch.randn(len(CLASSES) + 1, 3, 1, 1, generator=torch.Generator().manual_seed(5))
        noise = torch.Generator().manual_seed(self.dataset.number)
        pictures = torch.randn(self.dataset.number, 3, 16, 16, generator=noise)
        for index in torch.from_numpy(self.subset).split(self.batch_size):
            label = torch.from_numpy(self.dataset.labels)[index]
            yield SimpleNamespace(views=(colours[label] + pictures[index],), index=index, label=label)

    def __enter__(self) -> FakeLoader:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["eval.py", *map(str, arguments)])
    return int(evaluation.main())
