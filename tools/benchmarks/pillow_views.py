"""The usual way to load views, to compare with: Pillow transforms in the worker processes of a torch DataLoader.

Operations, order and probabilities are those of a `View`; random numbers come from Python's generator, as usual.
torchvision's transforms would call the same functions of Pillow; they are not used because torchvision cannot be
imported with every build of torch.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from pipelines import Dataset as Converted
from pipelines import View
from pipelines.formats.encoded import EncodedImages


class PillowViews(Dataset[tuple[Tensor, ...]]):
    """A torch data set of pictures in memory, decoded or as JPEGs. A sample is its views, float32 [3, s, s] each."""

    def __init__(
        self,
        pictures: Sequence[bytes | NDArray[np.uint8]],
        views: Sequence[View],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.pictures, self.views = pictures, views
        self.mean_C11, self.std_C11 = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        stored = self.pictures[number]
        if isinstance(stored, bytes):
            picture = Image.open(io.BytesIO(stored)).convert("RGB")
        else:
            picture = Image.fromarray(stored)
        return tuple(self._normalised(transform(picture, view)) for view in self.views)

    def _normalised(self, picture: Image.Image) -> Tensor:
        x_CHW = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div_(255)
        return x_CHW.sub_(self.mean_C11).div_(self.std_C11)


def transform(picture: Image.Image, view: View) -> Image.Image:
    """Return one random view of a picture."""
    left, top, width, height = random_box(picture.width, picture.height, view)
    side = (view.size, view.size)
    x = picture.resize(side, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if random.random() < view.jitter_p:
        x = jitter(x, view.jitter)
    if random.random() < view.grayscale_p:
        x = x.convert("L").convert("RGB")
    if random.random() < view.blur_p:
        x = x.filter(ImageFilter.GaussianBlur(random.uniform(*view.blur_sigma)))
    if random.random() < view.solarize_p:
        x = ImageOps.solarize(x, int(view.solarize_threshold))
    if random.random() < view.permute_p:
        x = Image.merge("RGB", random.sample(x.split(), 3))
    return ImageOps.mirror(x) if random.random() < view.flip else x


def random_box(width: int, height: int, view: View) -> tuple[int, int, int, int]:
    """Draw RandomResizedCrop's box (left, top, width, height); the complete picture if ten draws do not fit."""
    low, high = view.scale or (1.0, 1.0)
    for _ in range(10):
        area = width * height * random.uniform(low, high)
        shape = math.exp(random.uniform(math.log(view.ratio[0]), math.log(view.ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    return 0, 0, width, height


def jitter(x: Image.Image, strengths: Sequence[float]) -> Image.Image:
    """Apply ColorJitter: brightness, contrast, saturation and hue in random order."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for operation in random.sample(range(4), 4):
        strength = strengths[operation]
        if strength == 0:
            continue
        if operation < 3:
            x = enhancers[operation](x).enhance(random.uniform(max(0.0, 1 - strength), 1 + strength))
        else:
            h, s, v = x.convert("HSV").split()
            rotated = np.array(h) + np.uint8(round(255 * random.uniform(-strength, strength)) % 256)
            x = Image.merge("HSV", (Image.fromarray(rotated), s, v)).convert("RGB")
    return x


def pictures_of(dataset: Converted, decoded: bool) -> list[bytes | NDArray[np.uint8]]:
    """Return all images of a data set in memory: as files as they are stored, or decoded, [H, W, 3] each."""
    with EncodedImages(dataset) as images:
        stored = [images.image_file(number).tobytes() for number in range(len(images))]
    if not decoded:
        return list(stored)
    return [np.array(Image.open(io.BytesIO(one)).convert("RGB")) for one in stored]


def pillow_loader(data: PillowViews, batch_size: int, batches: int, workers: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader with epochs of `batches` random batches. Its persistent workers are idle between two epochs."""
    sampler = RandomSampler(data, replacement=True, num_samples=batches * batch_size)
    return DataLoader(data, batch_size, sampler=sampler, num_workers=workers, persistent_workers=True)
