"""From the images of a batch to normalised views: the photometric half of the data path, on the device of the images.

The order of the operations is that of torchvision's MoCo v2 recipe: jitter (its four operations in each sample's own
order), grey, blur, solarise, channel permutation, normalise. `color.py` and `blur.py` define the operations. There are
three ways to run them:

    HostAugment      on a CPU: each picture passes through its own operations alone while it is in a core's cache, in
                     `color_kernels.py`
    TritonAugment    on a GPU: three kernels for all views of one size, which also cut decoded images
    TorchAugment     elsewhere, by torch: the reference

They agree to rounding, which tests check. None is compiled or traced by torch: the thread that augments may run while
another one compiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation.host_augment import HostAugment
from pipelines.augmentation.operations import Normalization
from pipelines.augmentation.torch_augment import TorchAugment
from pipelines.executors.executor import Images
from pipelines.plan.plan import BatchPlan
from pipelines.plan.views import View
from pipelines.triton_support import has_triton


class Augment(Protocol):
    """Turns the images of batches into normalised views.

    Attributes:
        note: a text for the user, if the first batch or all of them take longer than they could: why they do.
    """

    @property
    def note(self) -> str: ...

    def numbers(self, images: Images, plan: BatchPlan) -> list[NDArray[Any]]:
        """Return the arrays that the call for this batch needs on the device."""
        ...

    def __call__(self, images: Images, numbers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the views of a batch.

        Args:
            images: of an executor, on the device.
            numbers: the arrays that `numbers` returns, on the device.

        Returns:
            for each view [N, 3, size, size], channels-last in memory; the caller owns them.
        """
        ...

    def close(self) -> None:
        """End its threads."""
        ...


def make_augment(
    views: Sequence[View],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    threads: int = 1,
) -> Augment:
    """Make the augmentation that is the fastest on a device.

    Args:
        views: the descriptions of the views.
        mean, std: of red, green and blue, on the scale 0 to 1.
        device: where the images lie and the views are made.
        dtype: of the views.
        threads: number of threads that share the work on a CPU.
    """
    normalization = Normalization.of(mean, std, device)
    if device.type == "cpu" and find_spec("numba") is not None:
        return HostAugment(views, normalization, dtype, threads)
    if has_triton(device):
        from pipelines.augmentation.triton_augment import TritonAugment  # here, because only GPUs have Triton

        return TritonAugment(views, normalization, dtype)
    return TorchAugment(views, normalization, dtype)
