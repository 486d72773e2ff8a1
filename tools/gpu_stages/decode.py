"""Decoding and cutting two views of 224 px from photos of 500 px: ours by each loader, then FFCV's and DALI's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines import View
from tools.benchmarks import loader
from tools.gpu_stages.context import Context

_BESIDE = ("ours, dali", "FFCV Loader", "DALI a view")


def rows(context: Context) -> Iterator[dict[str, Any]]:
    size, count, batch_size = context.size((224, 2, 256), (32, 1, 16))  # FFCV compiles for seconds for each view
    dataset = context.photos()
    images = loader.Images(f"{count} x {size} px views", 0, dataset.number, batch_size, (View(size),) * count)
    yield loader.measure(images, dataset, context.settings, lambda name: name.startswith("ours")).row()
    yield loader.measure(images, dataset, context.settings, lambda name: name in _BESIDE).row()
