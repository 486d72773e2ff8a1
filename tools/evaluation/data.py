"""The labelled images of an evaluation: opening both data sets and choosing which labels are used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from models.evaluation.label_split import balanced_split, read_list
from models.evaluation.task import LabelledImages
from models.storage.encoder import Encoder
from pipelines import Dataset, open_dataset
from pipelines.formats.dataset import image_names
from tools.command_line import Failure
from tools.evaluation.options import EvaluationOptions


def open_images(options: EvaluationOptions, encoder: Encoder) -> LabelledImages:
    """Open both data sets and choose the labels.

    Both are normalised by the channel statistics that the encoder was trained with, or by those of the bank where the
    encoder does not name them.

    Raises:
        Failure: images without labels, or classes that differ.
        ValueError: a data set or a list that cannot be used.
    """
    bank, queries = (open_dataset(path, options.verify) for path in (options.data, options.val_data))
    check_labels(bank, queries)
    mean, std = encoder.mean or bank.mean, encoder.std or bank.std
    bank, queries = (replace(dataset, mean=mean, std=std) for dataset in (bank, queries))
    if options.label_list is not None:
        number_N, digest = read_list(options.label_list, image_names(bank), bank.labels, bank.path)
        labelled, labels = dict.fromkeys(options.seeds, number_N), f"list {digest}"
    else:
        labelled = {seed: balanced_split(bank.labels, options.share, seed) for seed in options.seeds}
        labels = "all" if options.share == 1 else f"{100 * options.share:g}%"
    return LabelledImages(bank, queries, labelled, np.flatnonzero(queries.labels >= 0), labels)


def check_labels(bank: Dataset, queries: Dataset) -> None:
    """Refuse data sets that no protocol can measure on.

    Raises:
        Failure: a data set has no labels, or their classes differ; the message names the option and the file.
    """
    for option, dataset in (("--data", bank), ("--val-data", queries)):
        if not dataset.classes or not (dataset.labels >= 0).any():
            raise Failure(f"{option} {dataset.path} has no labels; evaluation needs labelled images")
    if bank.classes != queries.classes:
        different = sorted(set(bank.classes) ^ set(queries.classes))
        what = f"only one has {', '.join(different[:5])}" if different else "in another order"
        raise Failure(
            f"--data and --val-data differ in their classes ({len(bank.classes)}, {len(queries.classes)}): {what}"
        )


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """Return what a result records about a data set: where it is, and how many of its images have a label."""
    number = int((dataset.labels >= 0).sum())
    return {"path": str(dataset.path), "source": dataset.name, "number": number, "checksum": dataset.checksum}
