"""What the quality monitor costs: one measurement beside one epoch of training, both with loading.

The duration of an epoch is extrapolated from a few steps of 256 images. ResNet-18 at 32 px, bfloat16. `--data FILE`
measures on a converted data set instead of 50,000 generated images; its size determines how many images the monitor
uses.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.evaluation.quality_monitor import QualityMonitor
from pipelines import open_dataset
from pipelines.compiled import compile_hot_path
from pipelines.plan.views import evaluation
from tools.benchmarks.loader import Images, converted
from tools.benchmarks.measure import Case, Settings, synchronize, take_turns
from tools.benchmarks.step import Sizes, prepared, recipe_of
from tools.benchmarks.training import endless, open_loader, speed

_PIXELS = 32


def cases(settings: Settings) -> Iterator[Case]:
    sizes = Sizes(width=16) if settings.device == "cpu" else Sizes(steps=50)
    sizes = replace(sizes, steps=max(sizes.steps, 4))
    compile_hot_path(True)  # as train.py does
    with ExitStack() as stack:
        if settings.data is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            dataset = converted(Images("", _PIXELS, 50_000, sizes.batch_size, ()), folder)
        else:
            dataset = open_dataset(settings.data)
        train = prepared(recipe_of("msvq", sizes), settings)
        method = train.method
        loading: dict[str, Any] = {"dtype": torch.bfloat16, "device": settings.device, "threads": settings.threads}
        monitor = QualityMonitor(dataset, evaluation(_PIXELS), method.views[0], **loading)
        loader = stack.enter_context(open_loader(dataset, method.views, sizes.batch_size, settings))
        batches = endless(loader)
        train(next(batches))

        def measurement() -> float:
            started = time.perf_counter()
            monitor.measure(method, sizes.batch_size)
            synchronize(settings.device)
            return time.perf_counter() - started

        def epoch() -> float:
            return dataset.number / speed(train, batches, sizes.steps, sizes.batch_size, settings.device)

        measurement()
        values = take_turns({"a measurement": measurement, "an epoch of training": epoch}, settings.repeats)
        monitor.close()
    name = f"msvq, {len(monitor.chosen_N):,} of {dataset.number:,} images measured"
    case = Case(name, "seconds", values)
    share = 1 / case.ratio("an epoch of training")
    facts = {"share of an epoch": round(share, 4), "network": f"ResNet-18, width {sizes.width}"}
    yield Case(name, "seconds", values, facts=facts)
