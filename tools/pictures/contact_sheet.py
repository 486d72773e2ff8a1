"""Contact sheets: rows of small pictures, with frames that say whether labels agree, and captions.

N pictures, s the side of a view.
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

CELL = 112  # side of a picture
_GAP, _TOP, _CAPTION = 6, 18, 14
_SAME, _OTHER, _PAPER, _INK = (40, 160, 70), (210, 50, 50), (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True)
class Cell:
    """A picture of CELL x CELL pixels, the colour of its frame or None, and a line under it."""

    picture: Image.Image
    frame: tuple[int, int, int] | None = None
    caption: str = ""


def sheet(rows: Sequence[Sequence[Cell | None]], titles: Sequence[str]) -> Image.Image:
    """The rows below each other, under the titles of the columns; None leaves a place empty."""
    captions = any(cell is not None and cell.caption for row in rows for cell in row)
    step, height = CELL + _GAP, CELL + _GAP + (_CAPTION if captions else 0)
    paper = Image.new("RGB", (len(titles) * step + _GAP, len(rows) * height + _GAP + _TOP), _PAPER)
    draw = ImageDraw.Draw(paper)
    for column, title in enumerate(titles):
        _write(draw, _GAP + column * step, 4, title)
    for n, row in enumerate(rows):
        for column, cell in enumerate(row):
            if cell is None:
                continue
            left, top = _GAP + column * step, _TOP + _GAP + n * height
            paper.paste(cell.picture, (left, top))
            if cell.frame is not None:
                draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=cell.frame, width=3)
            _write(draw, left, top + CELL + 1, cell.caption)
    return paper


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, caption: str) -> None:
    """As much of a line as fits under a picture."""
    text, font = fitting(caption)
    if draw.textlength(text, font) > CELL:
        while text and draw.textlength(text + "...", font) > CELL:
            text = text[:-1]
        text += "..."
    draw.text((left, top), text, fill=_INK, font=font)


def frame(first: int, second: int) -> tuple[int, int, int] | None:
    """Green where two labels are the same, red where they differ, None where one is missing."""
    if min(first, second) < 0:
        return None
    return _SAME if first == second else _OTHER


def class_of(dataset: Dataset, number: int) -> str:
    """The name of a sample's class, or nothing."""
    label = int(dataset.labels[number])
    return dataset.classes[label] if label >= 0 else ""


def pictures(dataset: Dataset, view: View, numbers: NDArray[np.int64], side: int = CELL) -> list[Image.Image]:
    """Samples, in the order of their numbers in the data set, as the view shows them; each number once."""
    numbers = np.unique(numbers)
    with make_loader(dataset, [view], 256, subset=numbers, shuffle=False, drop_last=False) as loader:
        return [picture(image, dataset, side) for batch in loader.epoch(0) for image in batch.views[0]]


def picture(view: Tensor, dataset: Dataset, side: int = CELL) -> Image.Image:
    """A normalised view [3, s, s] as a picture."""
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    pixels = (view.float().cpu().permute(1, 2, 0) * std + mean).clamp(0, 1) * 255
    drawn = Image.fromarray(pixels.round().to(torch.uint8).numpy())
    # Small views are enlarged by whole pixels, so that one sees what the network gets.
    return drawn.resize((side, side), Image.Resampling.NEAREST if drawn.width < side else Image.Resampling.LANCZOS)
