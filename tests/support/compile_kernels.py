"""Compile every Triton kernel of the data path for a GPU, without one: `python -m tests.support.compile_kernels`.

A driver that only knows what the GPU is stands in for CUDA's. `TritonAugment` runs as it is, on CPU tensors; instead of
being launched, its kernels are compiled down to machine code, with the arguments that they would get.
Prints the name of each kernel that is compiled for the first batch, and for later ones of other sizes after "later ".
"""

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget

from pipelines.augmentation import triton_cut, triton_kernels
from pipelines.augmentation.operations import Normalization
from pipelines.augmentation.triton_augment import TritonAugment
from pipelines.executors.executor import Decoded
from pipelines.plan.plan import Plan
from pipelines.plan.views import RESIZE, View, contrastive, evaluation
from pipelines.transfer import to_device_together

HOPPER = GPUTarget("cuda", 90, 32)
KERNELS = {triton_cut: ("cut_pillow", "cut_area"), triton_kernels: ("luma_sums", "columns", "rows")}


class Compiled:
    """A kernel that is compiled where it would be launched."""

    prefix = ""

    def __init__(self, kernel):
        self.kernel, self.made = kernel, set()

    def __getitem__(self, grid):
        def launch(*arguments, **keywords):
            compiled = self.kernel.warmup(*arguments, grid=grid, **keywords)
            assert compiled.asm["cubin"]
            if id(compiled) not in self.made:
                self.made.add(id(compiled))
                print(Compiled.prefix + self.kernel.fn.__name__)

        return launch


def main():
    driver = SimpleNamespace(
        get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: HOPPER
    )
    triton.runtime.driver.set_active(driver)
    for module, names in KERNELS.items():
        for name in names:
            setattr(module, name, Compiled(getattr(module, name)))
    cpu, sides = torch.device("cpu"), np.arange(40, 47)
    pixels = torch.zeros(int((sides * sides).sum()), 3, dtype=torch.uint8)
    for resize, dtype in itertools.product(RESIZE, (torch.bfloat16, torch.float32)):
        views = [contrastive(32), View(24, resize=resize), evaluation(224, resize=resize), contrastive(32)]
        augment = TritonAugment(views, Normalization.of((0.5,) * 3, (0.2,) * 3, cpu), dtype)
        for count in (2, 3, 1, 6):
            Compiled.prefix = "" if count == 2 else "later "
            plan = Plan(sides, sides, views, count).batch(0, 0)
            cut = [torch.zeros(count, 3, view.size, view.size, dtype=torch.uint8) for view in views]
            for images in (Decoded(pixels, np.zeros(count, np.int64), sides[:count]), cut):
                augment(images, to_device_together(augment.numbers(images, plan), cpu))


if __name__ == "__main__":
    sys.exit(main())
