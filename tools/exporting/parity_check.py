"""Whether exported weights compute what the run's backbone does, on images of a converted data set.

Images are decoded by Pillow and cut by the encoder's own preprocessing, so that neither FFCV nor DALI is needed.
A difference is the largest absolute one between two features, over the largest absolute feature of the backbone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.storage.load_encoder import FrozenEncoder
from pipelines import Dataset, open_dataset
from pipelines.formats.card import DatasetError
from pipelines.formats.encoded import EncodedImages
from tools.command_line import Failure

COUNT = 16  # images, evenly spaced over the data set
LIMIT, ONNX_LIMIT = 1e-5, 1e-4


@dataclass(frozen=True)
class Checked:
    """One comparison: with what, the difference, the limit that it kept; or why there was none."""

    what: str
    difference: float | None
    limit: float
    why_not: str = ""


def data_of(config: dict[str, Any], given: str | None) -> Dataset:
    """The data set to take images from: the one that is named, else the run's own.

    Raises:
        Failure: none is named and the run's own is gone or another one now.
        DatasetError: the named one cannot be opened.
    """
    if given is not None:
        return open_dataset(given)
    own = config["data"]
    try:
        dataset = open_dataset(own["path"])
    except DatasetError as error:
        raise Failure(f"weights are compared on real images; give some with --data FILE ({error})") from None
    if dataset.checksum != own["checksum"]:
        raise Failure(f"{dataset.path} is no longer what the run was trained on; give images with --data FILE")
    return dataset


def real_images(dataset: Dataset, encoder: FrozenEncoder) -> Tensor:
    """Views [B, 3, s, s] of at most `COUNT` images, as the encoder takes them."""
    numbers = np.unique(np.linspace(0, dataset.number - 1, COUNT).round().astype(int)).tolist()
    views = []
    with EncodedImages(dataset) as images:
        for number in numbers:
            try:
                with Image.open(io.BytesIO(images.image_file(number).tobytes())) as image:
                    views.append(encoder.preprocess(image))
            except OSError as error:
                raise Failure(f"image {number} of {dataset.path} cannot be decoded ({error})") from None
    return torch.cat(views)


def compared(what: str, found_BD: Tensor, expected_BD: Tensor, limit: float = LIMIT) -> Checked:
    """The difference between two sets of features.

    Raises:
        Failure: it is above the limit, or no number.
    """
    if found_BD.shape != expected_BD.shape:
        raise Failure(f"{what} gives features of shape {tuple(found_BD.shape)}, not {tuple(expected_BD.shape)}")
    scale = float(expected_BD.abs().max())
    worst = float((found_BD - expected_BD).abs().max()) / scale if scale else float("nan")
    if not worst <= limit:  # also where it is not a number
        raise Failure(
            f"{what} differs from the run's backbone by {worst:.2g}, more than {limit:g}; nothing was written"
        )
    return Checked(what, worst, limit)
