"""The losses over a queue, forward and backward: ours compiled, ours not compiled, and the plain formula."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.benchmarks import hotpath
from tools.gpu_stages.context import Context


def rows(context: Context) -> Iterator[dict[str, Any]]:
    for case in hotpath.cases(context.settings, queues=(context.size(65_536, 512),)):
        yield case.row()
