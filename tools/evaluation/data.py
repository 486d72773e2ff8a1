"""The labelled images of an evaluation: what is learned from, what is classified, and which labels are used."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.label_split import balanced_split, listed
from models.storage.encoder import Encoder
from pipelines import Dataset, open_dataset
from pipelines.formats.dataset import image_names
from tools.command_line import Failure


@dataclass(frozen=True)
class Images:
    """Attributes:
    bank, queries: normalised by the channel statistics that the encoder was trained with; by the bank's where nothing
        says which these were.
    chosen: numbers of the bank's images whose labels are used, for each seed.
    asked: numbers of the labelled queries.
    labels: what is used of the bank's, in the protocol's words.
    """

    bank: Dataset
    queries: Dataset
    chosen: dict[int, NDArray[np.int64]]
    asked: NDArray[np.int64]
    labels: str

    @property
    def same(self) -> bool:
        """Whether the queries are the bank."""
        return self.bank.checksum == self.queries.checksum

    @property
    def wanted(self) -> NDArray[np.int64]:
        """All images of the bank that some seed uses, ascending."""
        return np.unique(np.concatenate(list(self.chosen.values())))


def open_images(options: Namespace, encoder: Encoder) -> Images:
    """Opens both data sets and chooses the labels.

    Raises:
        Failure: images without labels, or classes that differ.
        ValueError: a data set or a list that cannot be used.
    """
    paths = (options.data, options.val_data)
    bank, queries = (open_dataset(path, options.verify) for path in paths)
    check_labels(bank, queries)
    mean, std = encoder.mean or bank.mean, encoder.std or bank.std  # one normalisation for both
    bank, queries = (replace(dataset, mean=mean, std=std) for dataset in (bank, queries))
    if (path := getattr(options, "label_list", None)) is not None:
        numbers, digest = listed(path, image_names(bank), bank.labels, bank.path)
        chosen, labels = dict.fromkeys(options.seeds, numbers), f"list {digest}"
    else:
        chosen = {seed: balanced_split(bank.labels, options.share, seed) for seed in options.seeds}
        labels = "all" if options.share == 1 else f"{100 * options.share:g}%"
    return Images(bank, queries, chosen, np.flatnonzero(queries.labels >= 0), labels)


def check_labels(bank: Dataset, queries: Dataset) -> None:
    """Refuses what no protocol can measure on.

    Raises:
        Failure: naming the option and the file.
    """
    for option, dataset in (("--data", bank), ("--val-data", queries)):
        if not dataset.classes or not (dataset.labels >= 0).any():
            raise Failure(f"{option} {dataset.path} has no labels; evaluation needs labelled images")
    if bank.classes != queries.classes:
        unlike = sorted(set(bank.classes) ^ set(queries.classes))
        what = f"only one has {', '.join(unlike[:5])}" if unlike else "in another order"
        raise Failure(
            f"--data and --val-data differ in their classes ({len(bank.classes)}, {len(queries.classes)}): {what}"
        )


def described(dataset: Dataset) -> dict[str, Any]:
    """A data set in a result: how many of its images have a label, and which they are."""
    number = int((dataset.labels >= 0).sum())
    return {"path": str(dataset.path), "source": dataset.name, "number": number, "checksum": dataset.checksum}
