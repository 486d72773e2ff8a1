"""The data of a report: the training and held-out images of a run, and their features by its newest checkpoint.

N images, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.evaluation.features import extract
from models.evaluation.held_out import HeldOut, find_held_out
from models.storage.encoder import Encoder, EncoderError, from_run
from pipelines import Dataset, make_loader, open_dataset
from pipelines.formats.card import DatasetError
from tools.command_line import Failure
from tools.run.record import RunRecord

_BATCH = 512


@dataclass(frozen=True)
class Sample:
    """Some images of a data set, given by their numbers, and their features."""

    dataset: Dataset
    number_N: NDArray[np.int64]
    features_ND: Tensor

    @property
    def label_N(self) -> Tensor:
        """The labels as int64; -1 for an image without a label."""
        return torch.from_numpy(self.dataset.labels[self.number_N].astype(np.int64))


@dataclass(frozen=True)
class RunFeatures:
    """Features of training and held-out images by the newest checkpoint.

    Attributes:
        bank: training images, spread evenly over the data set; only labelled ones if there are any.
        held_out: held-out images; None if none are known.
        step: the step of the checkpoint.
    """

    encoder: Encoder
    bank: Sample
    held_out: Sample | None
    step: int


def training_images(record: RunRecord, data: str | None) -> Dataset:
    """Open the images that a run was trained on.

    Args:
        data: their path; None takes the path that the run was given.

    Raises:
        Failure: there are no images, or not those of the run.
    """
    path = Path(data or record.config["data"]["path"])
    if not path.exists() and data is None:
        raise Failure(f"the run's images are no longer at {path}; say where they are with --data FILE")
    dataset = open_dataset(path)
    if dataset.checksum != record.config["data"].get("checksum"):
        raise Failure(f"{record.path} was not trained on {path}; give the run's images with --data FILE")
    return dataset


def held_out_images(record: RunRecord, train: Dataset, val_data: str | None) -> HeldOut:
    """Open held-out images: the given ones, else those of the run, else the split converted with the training images.

    Args:
        val_data: the path of a data set, or None.

    Returns:
        The images, and how they were found; without a data set if `val_data` is None and none are found.

    Raises:
        DatasetError: `val_data` cannot be opened.
        Failure: the held-out images have other classes than the training images, or are no longer those of the run.
    """
    path = val_data or record.config["options"].get("val_data")
    if val_data is None and path is not None and not Path(path).exists():
        path = None
    try:
        found = find_held_out(train, path)
    except DatasetError as error:
        if val_data:
            raise
        return HeldOut(None, (str(error),))
    dataset = found.dataset
    if dataset is None:
        return found
    path = dataset.path
    known = (record.config.get("held_out") or {}).get("checksum")
    if val_data is None and known not in (None, dataset.checksum):
        raise Failure(f"{path} no longer holds the held-out images of the run; give them with --val-data FILE")
    if train.classes and dataset.classes and dataset.classes != train.classes:
        raise Failure(f"{path} has other classes than the run's images; give --val-data with the same classes")
    return found


def extract_features(
    record: RunRecord, train: Dataset, held_out: Dataset | None, bank: int, most: int, device: torch.device
) -> RunFeatures | None:
    """Compute features by the newest checkpoint.

    Args:
        bank: the largest number of training images.
        most: the largest number of held-out images.

    Returns:
        The features; None if the run has no checkpoint.
    """
    try:
        encoder = from_run(record.path)
    except EncoderError:
        if list((record.path / "checkpoints").glob("step-*")):
            raise
        return None
    labelled = np.flatnonzero(train.labels >= 0)
    from_train = spread_over(labelled if len(labelled) else np.arange(train.number), bank)
    seen = None
    if held_out is not None:
        seen = _sample(encoder, held_out, spread_over(np.arange(held_out.number), most), device)
    return RunFeatures(encoder, _sample(encoder, train, from_train, device), seen, int(encoder.step or 0))


def spread_over(numbers: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Return at most `most` of the numbers, evenly spread, as the kNN monitor chooses its images."""
    rows = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return np.asarray(numbers[rows], dtype=np.int64)


def _sample(encoder: Encoder, dataset: Dataset, number_N: NDArray[np.int64], device: torch.device) -> Sample:
    """Compute the features of the images with the given numbers, normalised as in training."""
    if encoder.mean is not None and encoder.std is not None:
        dataset = replace(dataset, mean=encoder.mean, std=encoder.std)
    # torch's stub wants another argument beside memory_format
    network = encoder.backbone.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
    with make_loader(
        dataset, [encoder.view], _BATCH, subset=number_N, device=device, shuffle=False, drop_last=False
    ) as loader:
        return Sample(dataset, number_N, extract(network, loader, len(number_N)).cpu())
