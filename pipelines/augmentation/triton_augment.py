"""Runs the Triton kernels on a batch: at most three launches for all views of one size and filter.

    decoded images    cut (with the sums of luma)  ->  columns  ->  rows
    views             luma_sums                    ->  columns  ->  rows

Views that have no operation but normalising, solarising and permuting pass by `columns` and need no sums.
N = pictures of a group of views, S = samples of a batch, V = views, K = photometric numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation import triton_cut, triton_kernels
from pipelines.augmentation.operations import Normalization, Operations
from pipelines.executors.executor import Decoded, Images
from pipelines.plan.photometric import BLUR, CHANNEL_ORDERS, JITTER_ORDERS
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import View

_FUSED = {"enable_fp_fusion": True}  # products are added without being rounded before; Triton's default is to change


@dataclass(frozen=True)
class _Group:
    """Views that share their launches: their numbers, side, filter, and whether none of them needs `columns`."""

    views: list[int]
    size: int
    resize: str
    plain: bool


class TritonAugment:
    """Turns decoded images or uint8 views into normalised views on a GPU; an `Augment`.

    Args:
        views: the descriptions of the views.
        normalization: on the device.
        dtype: of the views.
    """

    note = ""

    def __init__(self, views: Sequence[View], normalization: Normalization, dtype: torch.dtype) -> None:
        operations = [Operations.of(view) for view in views]
        plain = [not (own.jitter or own.grayscale or own.blur_radius) for own in operations]
        kinds = [(view.size, view.resize) for view in views]
        self._groups = []
        for kind in dict.fromkeys(kinds):
            members = [number for number, own in enumerate(kinds) if own == kind]
            self._groups.append(_Group(members, *kind, all(plain[number] for number in members)))
        self._order = [number for group in self._groups for number in group.views]
        self._radius_V = np.array([own.blur_radius for own in operations], np.float32)
        self._normalization, self._dtype, device = normalization, dtype, normalization.scale_C.device
        self._orders = torch.tensor(JITTER_ORDERS, dtype=torch.int32, device=device)
        self._channels = torch.tensor(CHANNEL_ORDERS, dtype=torch.int32, device=device)

    def numbers(self, images: Images, plan: BatchPlan) -> list[NDArray[Any]]:
        """Return the tables of the kernels: the photometric numbers and the crops, those of a group together."""
        numbers_VSP, order = plan.photometric_VSP, self._order
        numbers_VSK = np.zeros((*numbers_VSP.shape[:2], triton_kernels.COLUMNS), np.float32)
        numbers_VSK[..., : numbers_VSP.shape[2]] = numbers_VSP[order]
        numbers_VSK[..., triton_kernels.RADIUS] = (numbers_VSP[..., BLUR] > 0)[order] * self._radius_V[order, None]
        if not isinstance(images, Decoded):
            return [numbers_VSK]
        crops_VSK = np.zeros((*numbers_VSP.shape[:2], triton_cut.COLUMNS), np.int64)
        crops_VSK[..., 0], crops_VSK[..., 1] = images.first_S, images.width_S
        crops_VSK[..., 2:6], crops_VSK[..., 6] = plan.crop_VS4[order], plan.flip_VS[order]
        return [numbers_VSK, crops_VSK]

    def __call__(self, images: Images, numbers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the views of a batch."""
        numbers_VSK, first = numbers[0], 0
        samples = numbers_VSK.shape[1]
        made: dict[int, Tensor] = {}
        for group in self._groups:
            last = first + len(group.views)
            numbers_NK = numbers_VSK[first:last].flatten(0, 1)
            if isinstance(images, Decoded):
                crops_NK = numbers[1][first:last].flatten(0, 1)
                pixels, sums = self._cut(images.pixels_P3, crops_NK, numbers_NK, group)
            else:
                pixels, sums = self._joined([images[number] for number in group.views], numbers_NK, group)
            views = self._colours(pixels, sums, numbers_NK).permute(0, 3, 1, 2)
            made |= {number: views[place * samples :][:samples] for place, number in enumerate(group.views)}
            first = last
        return tuple(made[number] for number in range(len(self._order)))

    def close(self) -> None:
        """Nothing is to be ended."""

    def _cut(
        self, pixels_P3: Tensor, crops_NK: Tensor, numbers_NK: Tensor, group: _Group
    ) -> tuple[Tensor, Tensor | None]:
        """Return the uint8 views of a group [N, size, size, 3], and their sums of luma [N, T] if they need them."""
        count, size, tile = len(crops_NK), group.size, triton_cut.TILE
        cut = torch.empty((count, size, size, 3), dtype=torch.uint8, device=pixels_P3.device)
        grid = (count, triton.cdiv(size * size, tile))
        sums = None if group.plain else torch.empty(grid, dtype=torch.float32, device=cut.device)
        arguments = (pixels_P3, crops_NK, size, numbers_NK, self._orders, cut, cut if sums is None else sums)
        constants = {"SUMS": sums is not None, "TILE": tile, **_FUSED}
        if count and group.resize == "area":
            triton_cut.cut_area[grid](*arguments, **constants)
        elif count:
            triton_cut.cut_pillow[grid](*arguments, **constants, CUBIC=group.resize == "bicubic")
        return cut, sums

    def _joined(self, views: list[Tensor], numbers_NK: Tensor, group: _Group) -> tuple[Tensor, Tensor | None]:
        """Return what `_cut` does for views that are cut already."""
        pixels = torch.cat([view.permute(0, 2, 3, 1) for view in views]).contiguous()
        grid = (len(pixels), triton.cdiv(group.size**2, triton_kernels.TILE))
        if group.plain:
            return pixels, None
        sums = torch.empty(grid, dtype=torch.float32, device=pixels.device)
        if len(pixels):
            tile = triton_kernels.TILE
            triton_kernels.luma_sums[grid](pixels, numbers_NK, self._orders, sums, group.size**2, TILE=tile, **_FUSED)
        return pixels, sums

    def _colours(self, source: Tensor, sums: Tensor | None, numbers_NK: Tensor) -> Tensor:
        """Return uint8 pictures [N, H, W, 3] as normalised ones in the views' dtype, with all operations if `sums`."""
        count, height, width, _ = source.shape
        output = torch.empty(source.shape, dtype=self._dtype, device=source.device)
        if not count:
            return output
        pixels, tile, steps = height * width, triton_kernels.TILE, (3, 1)
        grid = (count, triton.cdiv(pixels, tile))
        if sums is not None:
            planes = torch.empty((count, 3, pixels), dtype=torch.float32, device=source.device)
            tiles, arguments = sums.shape[1], (source, numbers_NK, self._orders, sums, planes, height, width)
            triton_kernels.columns[grid](*arguments, tiles, TILE=tile, TILES=triton.next_power_of_2(tiles), **_FUSED)
            source, steps = planes, (1, pixels)
        constants = (numbers_NK, self._channels, *self._normalization)
        triton_kernels.rows[grid](source, *steps, *constants, output, height, width, TILE=tile, **_FUSED)
        return output
