"""What the values of a split's pixels say: a range that is hardly used, or a scale that does not suit them.

Also the range that `--range auto` takes: the smallest and the largest value in the files of all splits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.decoding.image_file import open_image
from pipelines.decoding.png_text import decoded
from pipelines.decoding.rgb import extremes
from pipelines.decoding.value_range import ValueRange, in_words
from tools.conversion.byte_locations import Item, Kept
from tools.conversion.encoding_pool import chunks
from tools.conversion.item_content import fetch_content
from tools.conversion.library_warnings import c_lines_as_warnings, collected
from tools.conversion.process_pool import in_order
from tools.conversion.tree import SourceError

LEVELS = 16  # of 255, about a sixteenth: 12 bits in 16 are up to 4095 of 65535, which is 15.9 of 255
OUTLIERS = 0.01  # share of the images that may be darker, or brighter, than is said of a split
FAR = 0.05  # of black or white: a mean that a suitable range does not leave
CHUNK = 64  # images a task


def value_notes(name: str, card: dict[str, Any], extremes_N2: NDArray[np.uint8], scale: ValueRange | None) -> list[str]:
    """Return lines for the user about the pixels that were stored.

    Args:
        name: of the file or folder that was written.
        card: of the split.
        extremes_N2: the smallest and largest of each image's values, 0 to 255; empty for images that were not decoded.
        scale: the range that the images were scaled by.
    """
    notes: list[str] = []
    if not len(extremes_N2):
        return notes
    low, high = _usual(extremes_N2)
    if high - low <= LEVELS and high > low:
        advice = "" if scale else " (12 bits stored in 16 look like this; --range auto or --range LO,HI scales them)"
        notes.append(
            f"{name}: the pixels are from {low} to {high} of 255, a sixteenth of what can be stored or less{advice}"
        )
    if scale and all(mean < FAR or mean > 1 - FAR for mean in card["mean"]):
        notes.append(f"{name}: nearly all pixels are black or white; {in_words(scale)} were taken from black to white")
    return notes


def _usual(extremes_N2: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the smallest and largest value without those of a few images."""
    few = int(OUTLIERS * len(extremes_N2)) or int(len(extremes_N2) >= 10)
    low_N, high_N = np.sort(extremes_N2, axis=0).T
    return int(low_N[few]), int(high_N[-1 - few])


def range_of_all(items: list[Item], max_pixels: int, workers: int) -> ValueRange:
    """Return the smallest and the largest value in the files of these images; files that cannot be read do not count.

    Args:
        max_pixels: of an image that is decoded at all; fewer of a `COSTLY` format.

    Raises:
        SourceError: there is no range to take.
        WorkerError: a worker was killed.
    """
    tasks = ((chunk, max_pixels) for chunk in chunks(items, CHUNK))
    found = [pair for chunk in in_order(_extremes_of, tasks, workers) for pair in chunk]
    if not found:
        raise SourceError("--range auto found no image that can be read; give --range LO,HI")
    low, high = min(low for low, _ in found), max(high for _, high in found)
    if low == high:
        raise SourceError(f"--range auto found the value {low:g} in all pixels, and no range; check the files")
    return ValueRange(low, high)


def _extremes_of(task: tuple[list[Item], int]) -> list[ValueRange]:
    items, max_pixels = task
    return [found for item in items if (found := _extremes(item, max_pixels)) is not None]


def _extremes(item: Item, max_pixels: int) -> ValueRange | None:
    """Return the range of an image that can be read; its conversion reports what libraries warn of."""
    assert not isinstance(item.content, Kept)

    def of_file(data: bytes) -> ValueRange:
        with open_image(data, max_pixels) as image:
            return extremes(image)

    try:
        content = fetch_content(item.content)
        if isinstance(content, bytes):
            with collected(), c_lines_as_warnings(content):
                return decoded(content, of_file)
        return ValueRange(int(content.min()), int(content.max()))
    except Exception:  # hostile bytes make decoders raise anything; the conversion reports these files
        return None
