"""JPEG photos of a given size: four real ones joined to each, or generated ones where no folder of photos is given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tools.conversion.synthetic_images import write_jpegs

PHOTOS = "LIKENESS_PHOTOS"  # the environment variable that names a folder of photos
CAMERA_QUALITY = 92


def write_photos(folder: Path, size: tuple[int, int], number: int) -> str:
    """Write JPEGs of a width and height into a flat folder; return what they are, in words."""
    source = os.environ.get(PHOTOS)
    found = sorted(Path(source).rglob("*.jpg")) if source else []
    if not found:
        write_jpegs(folder, number, max(size), CAMERA_QUALITY)
        return f"generated photos ({max(size)} px square)"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(number):
        _joined([found[choice] for choice in rng.integers(len(found), size=4)], size).save(
            folder / f"{index:06d}.jpg", quality=CAMERA_QUALITY
        )
    return "photos"


def _joined(paths: list[Path], size: tuple[int, int]) -> Image.Image:
    """Four photos, each cropped to a quarter of the size; enlarged only where one is smaller than that."""
    made, quarter = Image.new("RGB", size), (-(-size[0] // 2), -(-size[1] // 2))
    for place, path in enumerate(paths):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        enlarged = max(1.0, quarter[0] / photo.width, quarter[1] / photo.height)
        if enlarged > 1:
            photo = photo.resize((int(np.ceil(photo.width * enlarged)), int(np.ceil(photo.height * enlarged))))
        made.paste(photo.crop((0, 0, *quarter)), (place % 2 * quarter[0], place // 2 * quarter[1]))
    return made
