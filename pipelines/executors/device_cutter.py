"""Cuts the views of batches on the device where the decoded images lie: by Triton on a GPU that has it, else by torch.

The host sends boxes and waits for nothing. Memory: with torch, the temporaries of one block of samples.
P = pixels of all images, S = samples of a batch.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.executors.resize_crops import padded, resize_crops
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import View
from pipelines.transfer import to_device

_BLOCK = 2**24  # pixels of padded boxes that are resized at once: 0.6 GiB of temporaries, in float64 0.9 GiB


def cut_views(
    pixels_P3: Tensor,
    first_S: NDArray[np.int64],
    width_S: NDArray[np.integer],
    plan: BatchPlan,
    views: tuple[View, ...],
) -> list[Tensor]:
    """Return the views of a batch; on CUDA they are queued on the current stream.

    Args:
        pixels_P3: uint8 [P, 3], the rows of pixels of all images, one after the other.
        first_S: each sample's first pixel.
        width_S: each image's width.
        plan: boxes and flips.

    Returns:
        for each view uint8 [S, 3, size, size], channels-last in memory.
    """
    device = pixels_P3.device
    if device.type == "cuda" and find_spec("triton") is not None:
        return cut_by_triton(pixels_P3, first_S, width_S, plan, views)
    first_of_S, stride_S = to_device(first_S, device), to_device(width_S.astype(np.int64), device)
    crop_VS4, flip_VS = to_device(plan.crop_VS4.astype(np.int64), device), to_device(plan.flip_VS, device)
    cut = []
    for number, view in enumerate(views):
        sides = padded(plan.crop_VS4[number])
        step = max(1, _BLOCK // (sides[0] * sides[1]))
        blocks = [
            resize_crops(
                pixels_P3,
                first_of_S[start : start + step],
                stride_S[start : start + step],
                crop_VS4[number, start : start + step],
                flip_VS[number, start : start + step],
                view.size,
                view.resize,
                sides,
            )
            for start in range(0, max(1, len(first_S)), step)
        ]
        cut.append(torch.cat(blocks) if len(blocks) > 1 else blocks[0])
    return cut


def cut_by_triton(
    pixels_P3: Tensor,
    first_S: NDArray[np.int64],
    width_S: NDArray[np.integer],
    plan: BatchPlan,
    views: tuple[View, ...],
) -> list[Tensor]:
    """Return what `cut_views` does, by one transfer, and one kernel for all views of one size and filter."""
    from pipelines.executors import triton_cut  # here, because only GPUs have Triton

    kinds = [(view.size, view.resize) for view in views]
    groups = [[v for v, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)]
    order = [v for group in groups for v in group]
    samples = len(first_S)
    table_VSK = np.empty((len(views), samples, triton_cut.COLUMNS), dtype=np.int64)
    table_VSK[..., 0], table_VSK[..., 1] = first_S, width_S
    table_VSK[..., 2:6], table_VSK[..., 6] = plan.crop_VS4[order], plan.flip_VS[order]
    table = to_device(table_VSK, pixels_P3.device)
    cut: dict[int, Tensor] = {}
    for group in groups:
        size, resize = kinds[group[0]]
        rows = table[len(cut) : len(cut) + len(group)]
        made = torch.empty((len(group), samples, size, size, 3), dtype=torch.uint8, device=pixels_P3.device)
        grid = (len(group) * samples, -(-size * size // triton_cut.TILE))
        if resize == "area":
            triton_cut.cut_area[grid](pixels_P3, rows, made, size, TILE=triton_cut.TILE)
        else:
            cubic = resize == "bicubic"
            triton_cut.cut_pillow[grid](pixels_P3, rows, made, size, CUBIC=cubic, TILE=triton_cut.TILE)
        cut |= {v: made[place].permute(0, 3, 1, 2) for place, v in enumerate(group)}
    return [cut[v] for v in range(len(views))]
