"""A trained encoder in three lines, from an exported file, a run's folder or a state dict.

    from models import load_encoder
    encoder = load_encoder("clim.safetensors")
    features = encoder(encoder.preprocess("photo.jpg"))     # a path or a Pillow image -> [1, D]

It needs the checkout on Python's path; models/README.md shows how to use exported weights without it.

Shapes: B images, C channels, H x W pixels, S side of a view, D features.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.storage.encoder import Encoder, EncoderError, from_run, from_weights
from pipelines.decoding.image_file import open_image
from pipelines.decoding.png_text import decoded
from pipelines.decoding.rgb import orientation, to_rgb, upright
from pipelines.decoding.value_range import ValueRange, value_range
from pipelines.executors.resize_crops import padded, resize_crops
from pipelines.plan.crops import boxes
from pipelines.plan.views import View


class FrozenEncoder(nn.Module):
    """Maps images to features, in evaluation mode and without gradients, with the preprocessing that suits the weights.

    It is an ordinary module: `.to(device)` moves it, `.train()` and `.requires_grad_()` unfreeze it.

    Attributes:
        backbone: the network alone, which also returns the maps of its stages.
        dim: D.
        image_size, crop_ratio: side of the views in pixels, and the share of the shorter side that they show.
        resize: the filter that resizes them: area, bilinear or bicubic.
        mean, std: of the channels, on the scale 0 to 1; None where neither the file nor the caller gives them.
        encoder: the origin of the weights.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = encoder.backbone
        self.dim = encoder.backbone.dim
        self.image_size, self.crop_ratio = encoder.image_size, encoder.crop_ratio
        self.resize, self.mean, self.std = encoder.resize, encoder.mean, encoder.std
        self.eval().requires_grad_(False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return pooled features [B, D] of normalised images [B, 3, H, W]."""
        pooled: Tensor = self.backbone(images_BCHW).pooled
        return pooled

    def preprocess(
        self, *images: Image.Image | str | os.PathLike[str], value_range: tuple[float, float] | None = None
    ) -> Tensor:
        """Return views [B, 3, S, S] as in evaluation: centred square, resized, normalised; on the encoder's device.

        Files become RGB exactly as in conversion (`pipelines/decoding/rgb.py`), and so do Pillow images that were not
        converted before; an EXIF orientation is applied, and transparency is laid over white.

        Args:
            images: paths, or Pillow images of any size and mode.
            value_range: the values of the files that are black and white; None = those of the training images.

        Raises:
            EncoderError: mean and std are unknown, or an image cannot be read rightly.
        """
        if self.mean is None or self.std is None:
            raise EncoderError(
                f"{self.encoder.source} does not say how its images are normalised; give load_encoder mean and std"
            )
        scale = _range(value_range) or self.encoder.value_range
        views = torch.cat([_view(_rgb(image, scale), self.encoder.view) for image in images])
        device = next(self.backbone.parameters()).device
        mean_3, std_3 = torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)
        return (views.to(device).float() / 255 - mean_3.view(3, 1, 1)) / std_3.view(3, 1, 1)


def load_encoder(
    path: str | os.PathLike[str],
    *,
    checkpoint: str = "newest",
    stem: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str | None = None,
    heads: int | None = None,
    pool: str | None = None,
    norm_epsilon: float | None = None,
    network: str | None = None,
) -> FrozenEncoder:
    """Return the encoder in a file that `tools.export` wrote, in a run's folder, or in others' weights.

    Of others' weights, a warning says what was taken from the file, what was left, and what was assumed because shapes
    do not show it; the arguments give other values.

    Args:
        path: a file; or a folder with config.json and checkpoints.
        checkpoint: of a run, "newest" or "best" by its kNN monitor.
        stem, image_size, mean, std, resize: of a file that does not hold them; mean and std on the scale 0 to 1. Where
            nothing says how images are resized, it is by area.
        heads, pool, norm_epsilon: of a ViT, as in `VisionTransformer`.
        network: the place of the network in a file that holds several, such as "teacher".

    Raises:
        EncoderError: there is nothing at `path`, or it cannot be used; the message is one line.
    """
    path = Path(path)
    given: dict[str, Any] = {
        "stem": stem,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "resize": resize,
        "heads": heads,
        "pool": pool,
        "norm_epsilon": norm_epsilon,
        "network": network,
    }
    if not path.is_dir():
        if checkpoint != "newest":
            raise EncoderError(f"{path} is no folder of a run; leave checkpoint={checkpoint!r} out")
        encoder = from_weights(path, **given)
        if encoder.notes:
            warnings.warn(f"{path}: {'; '.join(encoder.notes)}", stacklevel=2)
        return FrozenEncoder(encoder)
    if surplus := [name for name, value in given.items() if value is not None]:
        raise EncoderError(f"{path} is a run, which says its {surplus[0]} itself; leave {surplus[0]}= out")
    return FrozenEncoder(from_run(path, checkpoint))


def _range(given: tuple[float, float] | None) -> ValueRange | None:
    try:
        return None if given is None else value_range(given)
    except ValueError as error:
        raise EncoderError(f"value_range: {error}") from None


def _rgb(image: Image.Image | str | os.PathLike[str], scale: ValueRange | None) -> Image.Image:
    """Return an image in mode RGB, upright."""
    name = f"an image of mode {image.mode}" if isinstance(image, Image.Image) else os.fspath(image)
    try:
        if isinstance(image, Image.Image):
            return _upright_rgb(image, scale)
        return decoded(Path(image).read_bytes(), lambda data: _upright_rgb(open_image(data), scale))
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files, and what we refuse
        raise EncoderError(
            f"{name} {error}" if type(error) is ValueError else f"{name} cannot be read: {error}"
        ) from None


def _upright_rgb(image: Image.Image, scale: ValueRange | None) -> Image.Image:
    return upright(to_rgb(image, scale), orientation(image))


def _view(rgb: Image.Image, view: View) -> Tensor:
    """Return one view, uint8 [1, 3, S, S], by the boxes and the resize of the loaders."""
    pixels_HWC = torch.from_numpy(np.array(rgb))
    height, width = pixels_HWC.shape[:2]
    key_1 = np.zeros(1, dtype=np.uint64)  # no random number is drawn for this view
    box_14 = boxes(view, key_1, np.array([height]), np.array([width]))
    first_1, stride_1, no_flip_1 = torch.zeros(1, dtype=torch.long), torch.tensor([width]), torch.tensor([False])
    box = torch.from_numpy(box_14.astype(np.int64))
    return resize_crops(
        pixels_HWC.view(-1, 3), first_1, stride_1, box, no_flip_1, view.size, view.resize, padded(box_14)
    )
