"""The data path: from files to batches of views on the device (files -> plan -> views). Start with README.md.

Names are imported when they are first used, so that conversion's worker processes start without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.batch import Batch
    from pipelines.formats.dataset import Dataset
    from pipelines.formats.opening import open_dataset
    from pipelines.loader import Loader, make_loader
    from pipelines.plan.views import View

__all__ = ["Batch", "Dataset", "Loader", "View", "make_loader", "open_dataset"]

_HOME = {
    "Batch": "batch",
    "Dataset": "formats.dataset",
    "Loader": "loader",
    "View": "plan.views",
    "make_loader": "loader",
    "open_dataset": "formats.opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pipelines' has no attribute '{name}'")
    return getattr(import_module(f"pipelines.{_HOME[name]}"), name)
