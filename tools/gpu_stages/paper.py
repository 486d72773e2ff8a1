"""MSVQ's training, data included, beside plain float32 PyTorch with Pillow in a DataLoader of one worker a core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.benchmarks import step
from tools.gpu_stages.context import Context


def rows(context: Context) -> Iterator[dict[str, Any]]:
    sizes = context.size(step.Sizes(width=64, batch_size=256, steps=32), step.Sizes(width=2, batch_size=16, steps=2))
    yield step.against_plain_code(context.small_images(), sizes, context.settings).row()
