"""The photometric part alone: uint8 pictures on the device to normalised views, beside kornia and torchvision v2.

All do MoCo v2's colours with the same probabilities and strengths; what is not installed, or does not import, is left
out by name. kornia and torchvision draw their random numbers in the run, ours come from the plan before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pipelines import View
from pipelines.augmentation.augment import Augment
from pipelines.plan.photometric import photometric_numbers
from pipelines.plan.random_numbers import key
from pipelines.plan.views import contrastive
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, take_turns

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZES = ((32, 512), (224, 64))  # sides, and pictures of each on a CPU
_ON_GPU = 8  # times as many on a GPU


def cases(settings: Settings) -> Iterator[Case]:
    for side, count in _SIZES:
        yield measure(side, count if settings.device == "cpu" else count * _ON_GPU, settings)


def measure(side: int, count: int, settings: Settings) -> Case:
    """Milliseconds for `count` pictures of side x side pixels."""
    view = contrastive(side)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    images = images.permute(0, 3, 1, 2).to(settings.device)
    functions, missing = {}, []
    for name, make in (("ours", _ours), ("kornia", _kornia), ("torchvision v2", _torchvision)):
        try:
            functions[name] = make(view, images, settings)
        except (ImportError, RuntimeError) as error:  # torchvision: "operator torchvision::nms does not exist"
            missing.append(f"{name} ({str(error).splitlines()[0]})")
    peaks = {}
    for name, function in functions.items():
        function()  # compiles
        peaks[name] = peak_memory(function, settings.device)
    values = take_turns(
        {name: milliseconds(function, settings.device) for name, function in functions.items()}, settings.repeats
    )
    facts = {"left out": ", ".join(missing)} if missing else {}
    return Case(f"{count} views at {side} px", "ms", values, peaks, facts)


def _ours(view: View, images: Tensor, settings: Settings) -> Callable[[], object]:
    device = torch.device(settings.device)
    augment = Augment(
        [view], _MEAN, _STD, device, torch.bfloat16, compile=settings.device != "cpu", threads=settings.threads
    )
    numbers = torch.from_numpy(photometric_numbers(view, key(0, np.arange(len(images)))))[None]
    return lambda: augment([images], numbers)


def _kornia(view: View, images: Tensor, settings: Settings) -> Callable[[], object]:
    import kornia.augmentation as K

    chain = nn.Sequential(
        K.ColorJitter(*view.jitter, p=view.jitter_p),
        K.RandomGrayscale(p=view.grayscale_p),
        K.RandomGaussianBlur((13, 13), view.blur_sigma, p=view.blur_p),
        K.Normalize(torch.tensor(_MEAN), torch.tensor(_STD)),
    ).to(settings.device)
    return _without_gradient(lambda: chain(images.float().div_(255)).bfloat16())


def _torchvision(view: View, images: Tensor, settings: Settings) -> Callable[[], object]:
    from torchvision.transforms import v2

    one = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_p),
            v2.RandomGrayscale(view.grayscale_p),
            v2.RandomApply([v2.GaussianBlur(13, view.blur_sigma)], view.blur_p),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(_MEAN, _STD),
        ]
    )
    # Its transforms draw once a call: pictures with numbers of their own go through one by one.
    return _without_gradient(lambda: torch.stack([one(image) for image in images]).bfloat16())


def _without_gradient(function: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(function)
