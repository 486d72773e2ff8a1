"""Small trained runs for the tests of reports, on classes whose names would break a careless page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import runs
from tests.support.datasets import converted
from tests.support.images import encoded, smooth, write

HOSTILE = ("$x_{$", "<img src=x onerror=alert(1)>", "_a & b")  # in the order of their labels
SMALL = {"knn_every": 2, "epochs": 4, "keep": 10, "refresh_epochs": 1}


def pictures(root: Path, each: int, names: tuple[str, ...] = HOSTILE) -> Path:
    """Class folders of smooth pictures, or with no names one flat folder, converted."""
    for label, name in enumerate(names or ("",)):
        for number in range(each):
            write(root / "images" / name / f"{number}.jpg", encoded(smooth(40, 50, 100 * label + number), quality=95))
    return Path(converted(root / "images", root / "images.beton").path)


def trained(run: Path, data: Path, **changed: Any) -> Path:
    """The folder of a run of twelve steps, or of as many as `changed` says."""
    import train

    with pytest.MonkeyPatch.context() as patch:
        words = runs.arguments(data, output=run, **(SMALL | changed))
        assert runs.in_process(train, patch, *words) == 0
    return run
