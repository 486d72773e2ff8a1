"""Small images for the tests of conversion: smooth enough that JPEG keeps them nearly as they are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A colour gradient [height, width, 3] whose corners depend on the seed."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def encoded(image: NDArray[Any] | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def class_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3, side: int = 24) -> Path:
    """root/<class>/<n>.jpg"""
    for c, name in enumerate(classes):
        for i in range(each):
            write(root / name / f"{i}.jpg", encoded(smooth(side, side + 4 * i, 100 * c + i), quality=90))
    return root


def stored(path: Path) -> list[NDArray[np.uint8]]:
    """Every image of a .beton, decoded by Pillow."""
    from pipelines.formats.beton_format import read_table
    from pipelines.formats.image_table import RAW

    table, data = read_table(path), path.read_bytes()
    images = []
    for i in range(len(table)):
        part = data[table.offset[i] : table.offset[i] + table.size[i]]
        if table.mode[i] == RAW:
            images.append(np.frombuffer(part, np.uint8).reshape(table.height[i], table.width[i], 3))
        else:
            images.append(np.asarray(Image.open(io.BytesIO(part)).convert("RGB")))
        assert images[-1].shape == (table.height[i], table.width[i], 3)
    return images
