"""What the card says of a split, from its images alone: the same for every format, and however it was made."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.digests import content_checksum, sample_checksum


def created_by() -> str:
    try:
        return f"likeness {version('likeness')}"
    except PackageNotFoundError:  # run from a checkout
        return "likeness"


def describe(
    source: str,
    layout: str,
    classes: tuple[str, ...],
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    labels: NDArray[np.int64],
    digests: bytes,
    moments: NDArray[np.float64],
) -> dict[str, Any]:
    """The card of N images, without settings and files.

    Args:
        heights, widths, labels: [N].
        digests: 16 bytes for each image, joined.
        moments: [N, 6] mean and mean square of red, green and blue. Mean and deviation weigh every image alike, as
            crops of one size will.
    """
    mean = moments[:, :3].mean(axis=0)
    std = np.sqrt(np.maximum(moments[:, 3:].mean(axis=0) - mean * mean, 0))
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    return {
        "number": len(labels),
        "classes": list(classes),
        "class_counts": counts.tolist(),
        "labelled": int(counts.sum()),
        "height": _spread(heights),
        "width": _spread(widths),
        "mean": [round(float(value), 8) for value in mean],
        "std": [round(float(value), 8) for value in std],
        "checksum": content_checksum(digests, labels),
        "sample_checksum": sample_checksum(digests),
        "source": source,
        "layout": layout,
        "created_by": created_by(),
    }


def _spread(sides: NDArray[np.int32]) -> dict[str, float]:
    return {"min": int(sides.min()), "median": float(np.median(sides)), "max": int(sides.max())}
