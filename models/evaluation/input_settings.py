"""How a network sees the images that it is measured on, as far as that changes the numbers.

    precision   of its forward passes: fp32, bf16, fp16
    pixels      whose filter cuts the views: "area" (loaders ffcv and resident, which agree), or "dali"

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
    """The usual ones are the defaults."""

    precision: str = "fp32"
    pixels: str = "area"

    @property
    def in_id(self) -> str:
        """What an id says of them: nothing of the usual ones."""
        return "".join(f"-{here}" for here, usual in zip(self, InputSettings(), strict=True) if here != usual)


def input_settings(
    datasets: Iterable[Dataset],
    loader: str = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **_: object,
) -> InputSettings:
    """Those of evaluation passes; data sets that are cut by different filters are both named.

    Args:
        loader, device, dtype: as in `make_loader`, whose other keywords change no number.

    Raises:
        ValueError: there is no such loader.
    """
    chosen = (choose(loader, dataset, torch.device(device), shuffle=False)[0] for dataset in datasets)
    filters = dict.fromkeys(spec.pixels for spec in chosen)
    return InputSettings(precision_of(dtype), "+".join(filters))
