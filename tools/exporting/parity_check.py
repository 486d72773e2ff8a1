"""Compares the features of exported weights with those of the run's backbone, on images of a converted data set.

Images are decoded by Pillow and cropped by the encoder's own preprocessing, so that neither FFCV nor DALI is needed. A
difference is the largest absolute difference of a feature, divided by the largest absolute feature of the backbone.

B images, D features, s the side of an image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.storage.encoder import EncoderError
from models.storage.load_encoder import FrozenEncoder
from pipelines import Dataset, open_dataset
from pipelines.decoding.value_range import BYTES
from pipelines.formats.card import DatasetError
from pipelines.formats.encoded import EncodedImages
from tools.command_line import Failure

COUNT = 16  # the number of images, evenly spaced over the data set
LIMIT, ONNX_LIMIT = 1e-5, 1e-4  # the largest difference that is accepted, in torch and in onnxruntime


@dataclass(frozen=True)
class Checked:
    """One comparison.

    Attributes:
        what: what computed the features.
        difference: how far they are from those of the run's backbone; None if they were not compared.
        limit: the largest difference that is accepted.
        why_not: why they were not compared.
    """

    what: str
    difference: float | None
    limit: float
    why_not: str = ""


def data_of(config: dict[str, Any], given: str | None) -> Dataset:
    """Return the data set to take images from: the given one, or else the run's training images.

    Args:
        config: what config.json of the run holds.
        given: the path of a data set, or None.

    Raises:
        Failure: none is given, and the run's training images are gone or have changed.
        DatasetError: the given data set cannot be opened.
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
    """Return views [B, 3, s, s] of at most `COUNT` images, preprocessed for the encoder.

    Raises:
        Failure: an image cannot be decoded.
    """
    numbers = np.unique(np.linspace(0, dataset.number - 1, COUNT).round().astype(int)).tolist()
    views = []
    with EncodedImages(dataset) as images:
        for number in numbers:
            try:
                with Image.open(io.BytesIO(images.image_file(number).tobytes())) as image:
                    views.append(encoder.preprocess(image, value_range=BYTES))
            except (OSError, EncoderError) as error:
                raise Failure(f"image {number} of {dataset.path} cannot be decoded ({error})") from None
    return torch.cat(views)


def compared(what: str, found_BD: Tensor, expected_BD: Tensor, limit: float = LIMIT) -> Checked:
    """Compare features with those of the run's backbone.

    Args:
        what: what computed `found_BD`.
        limit: the largest difference that is accepted.

    Raises:
        Failure: the difference is above the limit or NaN, or the shapes differ.
    """
    if found_BD.shape != expected_BD.shape:
        raise Failure(f"{what} gives features of shape {tuple(found_BD.shape)}, not {tuple(expected_BD.shape)}")
    scale = float(expected_BD.abs().max())
    worst = float((found_BD - expected_BD).abs().max()) / scale if scale else float("nan")
    if not worst <= limit:  # true for NaN too
        raise Failure(
            f"{what} differs from the run's backbone by {worst:.2g}, more than {limit:g}; nothing was written"
        )
    return Checked(what, worst, limit)
