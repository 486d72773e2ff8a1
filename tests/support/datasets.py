"""Small converted data sets for tests, made by the project's own conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines import Dataset, open_dataset
from tests.support.images import encoded, smooth, write


def converted(source: Path, out: Path, *options: str) -> Dataset:
    """The data set that `python -m tools.convert source out` writes."""
    from tools.convert import main

    assert main([str(source), str(out), "--workers", "1", *options]) == 0
    return open_dataset(out)


def photos(root: Path, classes: int = 3, each: int = 8, kind: str = "JPEG") -> Dataset:
    """Smooth pictures of mixed size and shape in class folders: seeded noise of a few colours, enlarged."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        for number in range(each):
            height, width = rng.integers(40, 90, 2)
            picture = smooth(int(height), int(width), 100 * label + number)
            name = root / "photos" / f"class{label}" / f"{number}.{'jpg' if kind == 'JPEG' else 'png'}"
            write(name, encoded(picture, kind, **({"quality": 95} if kind == "JPEG" else {})))
    return converted(root / "photos", root / "photos.beton")
