"""The photometric augmentation alone, from uint8 pictures on the device to normalised views: ours, kornia, torchvision.

All apply MoCo v2's colour augmentation with the same probabilities and strengths. A library that is not installed or
cannot be imported is left out and named. kornia and torchvision draw their random numbers during the measurement; ours
come from the plan and are computed before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pipelines import View
from pipelines.augmentation.augment import make_augment
from pipelines.plan.plan import Plan
from pipelines.plan.views import contrastive
from pipelines.transfer import to_device_together
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, take_turns

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZES = ((32, 512), (224, 64))  # side in pixels, and number of pictures on a CPU
_ON_GPU = 8  # a GPU gets this many times as many pictures


def cases(settings: Settings) -> Iterator[Case]:
    for side, count in _SIZES:
        yield measure(side, count if settings.device == "cpu" else count * _ON_GPU, settings)


def measure(side: int, count: int, settings: Settings) -> Case:
    """Measure the milliseconds for `count` pictures of side x side pixels."""
    view = contrastive(side)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    images = images.permute(0, 3, 1, 2).to(settings.device)
    contenders, missing = {}, []
    for name, make in (("ours", _ours), ("kornia", _kornia), ("torchvision v2", _torchvision)):
        try:
            contenders[name] = make(view, images, settings)
        except (ImportError, RuntimeError) as error:  # torchvision: "operator torchvision::nms does not exist"
            missing.append(f"{name} ({str(error).splitlines()[0]})")
    peaks = {}
    for name, function in contenders.items():
        function()  # compiles
        peaks[name] = peak_memory(function, settings.device)
    values = take_turns(
        {name: milliseconds(function, settings.device) for name, function in contenders.items()}, settings.repeats
    )
    facts = {"left out": ", ".join(missing)} if missing else {}
    return Case(f"{count} views at {side} px", "ms", values, peaks, facts)


def _ours(view: View, images: Tensor, settings: Settings) -> Callable[[], object]:
    device = torch.device(settings.device)
    augment = make_augment([view], _MEAN, _STD, device, torch.bfloat16, threads=settings.threads)
    whole = np.full(len(images), view.size)
    plan = Plan(whole, whole, [view], len(images)).batch(0, 0)
    return lambda: augment([images], to_device_together(augment.numbers([images], plan), device))


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

    transform = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_p),
            v2.RandomGrayscale(view.grayscale_p),
            v2.RandomApply([v2.GaussianBlur(13, view.blur_sigma)], view.blur_p),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(_MEAN, _STD),
        ]
    )
    # Each call of its transforms draws one set of random numbers, so pictures must be passed one by one.
    return _without_gradient(lambda: torch.stack([transform(image) for image in images]).bfloat16())


def _without_gradient(function: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(function)
