"""Runs the kernels of `triton_kernels.py` on a batch: one transfer of all numbers, three launches for each view size.

N = pictures of a view, V = views, K = photometric numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation import triton_kernels
from pipelines.plan.photometric import BLUR, CHANNEL_ORDERS, JITTER_ORDERS
from pipelines.transfer import to_device


class TritonAugment:
    """Turns uint8 views into normalised ones on a GPU.

    Args:
        plain: for each view, whether it has no operation at all but normalising and solarising or permuting.
        radius: for each view, taps on each side of the blur's centre; 0 = no blur.
        scale_C, shift_C: the normalised value of v is v * scale + shift; on the device.
        dtype: of the views.
    """

    def __init__(
        self, plain: Sequence[bool], radius: Sequence[int], scale_C: Tensor, shift_C: Tensor, dtype: torch.dtype
    ) -> None:
        device = scale_C.device
        self._plain, self._radius, self._dtype = plain, radius, dtype
        self._scale_C, self._shift_C = scale_C, shift_C
        self._orders = torch.tensor(JITTER_ORDERS, dtype=torch.int32, device=device)
        self._channels = torch.tensor(CHANNEL_ORDERS, dtype=torch.int32, device=device)

    def __call__(self, images: Sequence[Tensor], numbers_VNK: Tensor) -> tuple[Tensor, ...]:
        """Augment one batch; arguments and result are those of `Augment.__call__`."""
        device, count = self._scale_C.device, numbers_VNK.shape[1]
        sizes = [view.shape[2] for view in images]
        groups = [[v for v in range(len(sizes)) if sizes[v] == size] for size in dict.fromkeys(sizes)]
        order = [v for group in groups for v in group]
        table = to_device(self._table(numbers_VNK.numpy(), order), device)
        views: dict[int, Tensor] = {}
        for group in groups:
            rows = table[len(views) * count :][: len(group) * count]
            pixels = torch.cat([images[v].permute(0, 2, 3, 1) for v in group])
            made = self._launch(pixels, rows, all(self._plain[v] for v in group)).permute(0, 3, 1, 2)
            views |= {v: made[place * count : (place + 1) * count] for place, v in enumerate(group)}
        return tuple(views[v] for v in range(len(sizes)))

    def _table(self, numbers_VNK: NDArray[np.float32], order: Sequence[int]) -> NDArray[np.float32]:
        """Return the numbers of all pictures, those of one size after the other, and the radius of each blur."""
        radius_VN = np.where(numbers_VNK[..., BLUR] > 0, np.array(self._radius, np.float32)[:, None], 0)
        table_VNK = np.concatenate([numbers_VNK, radius_VN[..., None]], axis=2)[list(order)]
        return table_VNK.reshape(-1, triton_kernels.COLUMNS).astype(np.float32)

    def _launch(self, pixels_NHWC: Tensor, numbers_NK: Tensor, plain: bool) -> Tensor:
        """Run the kernels on the pictures of one size; return [N, H, W, 3] in the views' dtype."""
        count, height, width, _ = pixels_NHWC.shape
        output = torch.empty((count, height, width, 3), dtype=self._dtype, device=pixels_NHWC.device)
        if not count:
            return output
        pixels, tile = height * width, triton_kernels.TILE
        tiles = triton.cdiv(pixels, tile)
        grid, source, steps = (count, tiles), pixels_NHWC.contiguous(), (3, 1)
        if not plain:
            sums = torch.empty((count, tiles), dtype=torch.float32, device=source.device)
            planes = torch.empty((count, 3, pixels), dtype=torch.float32, device=source.device)
            triton_kernels.luma_sums[grid](source, numbers_NK, self._orders, sums, pixels, tiles, TILE=tile)
            triton_kernels.columns[grid](
                source,
                numbers_NK,
                self._orders,
                sums,
                planes,
                height,
                width,
                tiles,
                TILE=tile,
                TILES=triton.next_power_of_2(tiles),
            )
            source, steps = planes, (1, pixels)
        triton_kernels.rows[grid](
            source,
            *steps,
            numbers_NK,
            self._channels,
            self._scale_C,
            self._shift_C,
            output,
            height,
            width,
            TILE=tile,
        )
        return output
