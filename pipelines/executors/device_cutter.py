"""Cuts the views of batches by torch, on the device where the decoded images lie.

It is the reference for `augmentation/triton_cut.py`, and serves a CPU without FFCV, a GPU without Triton, and other
devices. The host sends boxes and waits for nothing. Memory: the temporaries of one block of samples.
S = samples of a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipelines.executors.executor import Decoded
from pipelines.executors.resize_crops import padded, resize_crops
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import View
from pipelines.transfer import to_device_together

_BLOCK = 2**24  # pixels of padded boxes that are resized at once: 0.6 GiB of temporaries, in float64 0.9 GiB


def cut_views(images: Decoded, plan: BatchPlan, views: tuple[View, ...]) -> list[Tensor]:
    """Return the views of a batch, for each uint8 [S, 3, size, size], channels-last in memory.

    On CUDA they are queued on the current stream.
    """
    arrays = (images.first_S, images.width_S.astype(np.int64), plan.crop_VS4.astype(np.int64), plan.flip_VS)
    first_S, stride_S, crop_VS4, flip_VS = to_device_together(arrays, images.pixels_P3.device)
    cut = []
    for number, view in enumerate(views):
        sides = padded(plan.crop_VS4[number])
        step = max(1, _BLOCK // (sides[0] * sides[1]))
        blocks = [
            resize_crops(
                images.pixels_P3,
                first_S[start : start + step],
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
