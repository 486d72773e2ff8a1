"""Precision and resize filter of evaluation passes: the input settings that change the numbers.

    precision   number type of the forward passes: fp32, bf16 or fp16
    pixels      whose filter resizes the views: "area" (loaders ffcv and resident, which agree) or "dali"

A protocol's id names them where they are not float32 and the area average.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from models.training.precision import precision_of
from pipelines import Dataset
from pipelines.executors.choose import choose


class InputSettings(NamedTuple):
    """Precision and resize filter; the defaults are the usual ones, which ids do not name."""

    precision: str = "fp32"
    pixels: str = "area"

    @property
    def in_id(self) -> str:
        """The part of a protocol's id that names unusual settings; empty for the usual ones."""
        return "".join(f"-{here}" for here, usual in zip(self, InputSettings(), strict=True) if here != usual)


def input_settings(
    datasets: Iterable[Dataset],
    loader: str = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **_: object,
) -> InputSettings:
    """Return the settings of evaluation passes. Where data sets are resized by different filters, both are named.

    Args:
        loader, device, dtype: as in `make_loader`, whose other keyword arguments change no number and are ignored.

    Raises:
        ValueError: there is no such loader.
    """
    chosen = (choose(loader, dataset, torch.device(device), shuffle=False)[0] for dataset in datasets)
    filters = dict.fromkeys(spec.pixels for spec in chosen)
    return InputSettings(precision_of(dtype), "+".join(filters))
