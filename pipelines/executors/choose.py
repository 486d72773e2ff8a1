"""Which executor cuts the views, and why: all of them follow the same plan, so it is a matter of speed and memory.

ffcv      decodes on the CPU, from a .beton or from shards; the fastest there that decodes
dali      decodes on a GPU where there is one, from shards or from a .beton; the same views by another filter
resident  decodes once; the set stays in the device's memory. A CPU gives the pixels of `ffcv` bit for bit, a GPU to
          within one level
auto      resident, where the decoded set takes at most a quarter of the device's free memory. But a loader in the
          data set's own order makes passes, a few in a run: it shares decoded images that a training loader
          holds, and decodes none for itself. Otherwise, on a GPU, the format's own (ffcv for .beton, dali for
          shards), and on a CPU ffcv; the other one where its library is missing
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from pipelines.executors.dali import DaliExecutor
from pipelines.executors.damage import Damage
from pipelines.executors.ffcv import BetonExecutor
from pipelines.executors.resident import ResidentExecutor, decoded_images, forecast, is_decoded
from pipelines.formats.dataset import Dataset
from pipelines.plan.plan import BatchPlan, Plan

LOADERS = ("auto", "ffcv", "dali", "resident")
AUTO_SHARE = 0.25  # of the device's free memory, for a decoded set that was not asked for


class Executor(Protocol):
    """What cuts the views: uint8 [S, 3, size, size] each, owned by the caller, from a function that waits for them.

    Attributes:
        damage: the images that could not be decoded.
    """

    damage: Damage

    def start(self, plan: BatchPlan) -> Callable[[], list[Tensor]]: ...

    def close(self) -> None: ...


def choose(loader: str, dataset: Dataset, device: torch.device, shuffle: bool) -> tuple[str, str]:
    """The executor's name, and a line that says what was taken and why.

    Raises:
        ValueError: there is no such loader.
    """
    if loader not in LOADERS:
        raise ValueError(f"unknown loader '{loader}'; take one of {', '.join(LOADERS)}")
    share, line = forecast(dataset, device)
    if is_decoded(dataset, device):
        share, line = 0.0, "shared with another loader"
    if loader == "resident":
        return loader, f"loader resident, as asked: {line}"
    if loader != "auto":
        return loader, f"loader {loader}, as asked"
    if share == 0 or (shuffle and share <= AUTO_SHARE):
        return "resident", f"loader resident: {line}"
    reason = f"{line}, more than {AUTO_SHARE:.0%}" if shuffle else "a pass in the data set's own order"
    by_speed = ("dali", "ffcv") if dataset.format == "shards" and device.type == "cuda" else ("ffcv", "dali")
    name = next(filter(_has, by_speed), by_speed[0])
    return name, f"loader {name}: {reason}"


def make_executor(
    loader: str, dataset: Dataset, plan: Plan, device: torch.device, threads: int
) -> tuple[Executor, str]:
    """The executor that `choose` names for the loader, and its line.

    Args:
        plan: whose batches it will cut.
        device: where the batches go.
        threads: for decoding.

    Raises:
        ValueError: there is no such loader, or the set does not fit into memory.
        ModuleNotFoundError: the executor's library is not installed.
    """
    name, note = choose(loader, dataset, device, plan.shuffle)
    if name == "dali":
        samples = -(-plan.batch_size // plan.world)
        return DaliExecutor(dataset, plan.views, threads, device, largest=2 * samples), note  # anchors and partners
    if name == "ffcv":
        return BetonExecutor(dataset, plan.views, threads, pin=device.type == "cuda"), note
    images = decoded_images(dataset, device, threads)
    if device.type == "cpu" and _has("ffcv"):
        return BetonExecutor(dataset, plan.views, threads, images=images), note
    return ResidentExecutor(dataset, plan.views, images), note


def _has(executor: str) -> bool:
    package = {"ffcv": "ffcv", "dali": "nvidia.dali"}[executor]
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # no package above it; a module that a test has taken away
        return False
