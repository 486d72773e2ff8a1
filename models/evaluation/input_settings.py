"""Precision and resize filter of evaluation passes: the input settings that change the numbers.

    precision   number type of the forward passes: fp32, bf16 or fp16
    pixels      the filter that resizes the views: area, bilinear or bicubic

A protocol's id names them where they are not float32 and the area average. ("dali" in ids of earlier versions was that
loader's own filter; it now has those of the others.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from models.training.precision import precision_of
from pipelines import View


class InputSettings(NamedTuple):
    """Precision and resize filter; the defaults are the usual ones, which ids do not name."""

    precision: str = "fp32"
    pixels: str = "area"

    @property
    def in_id(self) -> str:
        """The part of a protocol's id that names unusual settings; empty for the usual ones."""
        return "".join(f"-{here}" for here, usual in zip(self, InputSettings(), strict=True) if here != usual)


def input_settings(view: View, dtype: torch.dtype = torch.float32, **_: object) -> InputSettings:
    """Return the settings of evaluation passes with a view.

    Args:
        dtype: as in `make_loader`, whose other keyword arguments change no number and are ignored.
    """
    return InputSettings(precision_of(dtype), view.resize)
