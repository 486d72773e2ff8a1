"""Training steps beside which a checkpoint is written, and the same steps without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.benchmarks import checkpoint
from tools.gpu_stages.context import Context


def rows(context: Context) -> Iterator[dict[str, Any]]:
    width, batch_size, queue = context.size((64, 256, 65_536), (2, 16, 64))
    yield checkpoint.of_network(width, batch_size, queue, context.settings).row()
