"""CLIM's selection of partners among 50,000 samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tools.benchmarks import selection
from tools.gpu_stages.context import Context


def rows(context: Context) -> Iterator[dict[str, Any]]:
    for case in selection.cases(replace(context.settings, sizes=(context.size(50_000, 2_000),))):
        yield case.row()
