"""Contact sheets: rows of small pictures with captions, and with frames that show whether labels agree.

s is the side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pipelines import Dataset, View, make_loader
from tools.pictures.fonts import fitting

CELL = 112  # the side of a picture, in pixels
_GAP, _TITLES, _CAPTION = 6, 18, 14  # between pictures; height of the column titles and of a caption
_GREEN, _RED, _PAPER, _INK = (40, 160, 70), (210, 50, 50), (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True)
class Cell:
    """A picture of CELL x CELL pixels, the colour of its frame (None: no frame), and the caption under it."""

    picture: Image.Image
    frame: tuple[int, int, int] | None = None
    caption: str = ""


def sheet(rows: Sequence[Sequence[Cell | None]], titles: Sequence[str]) -> Image.Image:
    """Draw rows of cells under the titles of their columns; None leaves a cell empty."""
    captions = any(cell is not None and cell.caption for row in rows for cell in row)
    step, height = CELL + _GAP, CELL + _GAP + (_CAPTION if captions else 0)
    paper = Image.new("RGB", (len(titles) * step + _GAP, len(rows) * height + _GAP + _TITLES), _PAPER)
    draw = ImageDraw.Draw(paper)
    for column, title in enumerate(titles):
        _write(draw, _GAP + column * step, 4, title)
    for n, row in enumerate(rows):
        for column, cell in enumerate(row):
            if cell is None:
                continue
            left, top = _GAP + column * step, _TITLES + _GAP + n * height
            paper.paste(cell.picture, (left, top))
            if cell.frame is not None:
                draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=cell.frame, width=3)
            _write(draw, left, top + CELL + 1, cell.caption)
    return paper


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, caption: str) -> None:
    """Write a line under a picture, shortened to the width of the picture."""
    text, font = fitting(caption)
    if draw.textlength(text, font) > CELL:
        while text and draw.textlength(text + "...", font) > CELL:
            text = text[:-1]
        text += "..."
    draw.text((left, top), text, fill=_INK, font=font)


def frame(first: int, second: int) -> tuple[int, int, int] | None:
    """Return the frame's colour: green if two labels are equal, red if they differ, None if one is missing."""
    if min(first, second) < 0:
        return None
    return _GREEN if first == second else _RED


def class_of(dataset: Dataset, number: int) -> str:
    """Return the name of a sample's class; empty if the sample has no label."""
    label = int(dataset.labels[number])
    return dataset.classes[label] if label >= 0 else ""


def pictures(dataset: Dataset, view: View, numbers: NDArray[np.int64], side: int = CELL) -> list[Image.Image]:
    """Return a picture of each sample, as the view shows it, in ascending order of the distinct numbers."""
    numbers = np.unique(numbers)
    with make_loader(dataset, [view], 256, subset=numbers, shuffle=False, drop_last=False) as loader:
        return [picture(image, dataset, side) for batch in loader.epoch(0) for image in batch.views[0]]


def picture(view: Tensor, dataset: Dataset, side: int = CELL) -> Image.Image:
    """Return a normalised view [3, s, s] as a picture of the given side."""
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    pixels = (view.float().cpu().permute(1, 2, 0) * std + mean).clamp(0, 1) * 255
    drawn = Image.fromarray(pixels.round().to(torch.uint8).numpy())
    # Small views are enlarged without interpolation, so that the pixels that the network gets are visible.
    return drawn.resize((side, side), Image.Resampling.NEAREST if drawn.width < side else Image.Resampling.LANCZOS)
