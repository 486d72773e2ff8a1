"""Choices of cuDNN and of the compiler beside torch's own, for a recorded step: see `tools/run/tuning.py`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch._inductor import config

from tools.benchmarks.measure import Case, take_turns
from tools.gpu_stages.context import Context
from tools.gpu_stages.recipes import recipe_of
from tools.gpu_stages.timed_step import TimedStep
from tools.run.train_step import noise_batch
from tools.run.tuning import Tuning

CHOICES = {
    "cuDNN times its algorithms": Tuning(cudnn_benchmark=True),
    "coordinate descent": Tuning(inductor={"coordinate_descent_tuning": True}),
    "1x1 convolutions as matrix products": Tuning(inductor={"conv_1x1_as_mm": True}),
}


def rows(context: Context, name: str) -> Iterator[dict[str, Any]]:
    """Measure each choice beside torch's own, in turns."""
    recipe = recipe_of(name, context)
    usual = TimedStep(recipe, context, tuning=Tuning())
    device = torch.device(context.settings.device)
    noise = noise_batch(usual.method.views, recipe.training.batch_size, device, torch.bfloat16)
    for choice, tuning in CHOICES.items():
        torch.compiler.reset()
        with config.patch(dict(tuning.inductor)):
            step = TimedStep(recipe, context, tuning=tuning)
        contenders = {choice: partial(step.speed_on, noise), "torch's choice": partial(usual.speed_on, noise)}
        facts = {"first step s": round(step.first_seconds, 2)}
        yield Case(
            f"{name}: {choice}", "samples/s", take_turns(contenders, context.settings.repeats), facts=facts
        ).row()
        del step, contenders
