"""The executors, one line each, and the choice of one: all follow the same plan, so it is a matter of speed and memory.

ffcv      decodes on the CPU; the fastest executor there that decodes
dali      decodes on a GPU, or on the CPU without one
resident  decodes the data set once and keeps it in the device's memory; on a CPU its pixels equal those of `ffcv`
          bit for bit, on a GPU too but for the area filter (to within one level)
auto      the choice of `choose`: `resident` where the decoded set is small, else the fastest one that decodes
"""

from __future__ import annotations

import torch

from pipelines.executors import dali, ffcv, resident
from pipelines.executors.executor import Executor, ExecutorSpec
from pipelines.formats.dataset import Dataset
from pipelines.plan.plan import Plan

# In the order in which "auto" tries them on a CPU.
EXECUTORS: dict[str, ExecutorSpec] = {
    spec.name: spec
    for spec in (
        ffcv.SPEC,
        dali.SPEC,
        resident.SPEC,
    )
}
AUTO = "auto"
LOADERS = (AUTO, *EXECUTORS)  # what `--loader` accepts
AUTO_SHARE = 0.25  # of the device's free memory: the largest decoded set that "auto" keeps


def choose(loader: str, dataset: Dataset, device: torch.device, shuffle: bool) -> tuple[ExecutorSpec, str]:
    """Choose an executor.

    "auto" takes `resident` if the decoded set fits into `AUTO_SHARE` of the device's free memory. A loader in the data
    set's own order (`shuffle` false) makes a few passes in a run: it shares decoded images that another loader of this
    process holds, and decodes none for itself. Otherwise "auto" takes the first installed executor, on a GPU first
    those that prefer the data set's format.

    Args:
        loader: one of `LOADERS`.
        device: where the batches go.
        shuffle: whether the plan shuffles, as for training.

    Returns:
        the executor's facts, and one line that says which one was chosen and why.

    Raises:
        ValueError: there is no such loader.
    """
    if loader != AUTO:
        if loader not in EXECUTORS:
            raise ValueError(f"unknown loader '{loader}'; take one of {', '.join((AUTO, *EXECUTORS))}")
        detail = f": {_memory(dataset, device)[1]}" if loader == resident.SPEC.name else ""
        return EXECUTORS[loader], f"loader {loader}, as asked{detail}"
    share, line = _memory(dataset, device)
    if share == 0 or (shuffle and share <= AUTO_SHARE):
        return resident.SPEC, f"loader {resident.SPEC.name}: {line}"
    spec = _fastest_decoder(dataset, device)
    reason = f"{line}, more than {AUTO_SHARE:.0%}" if shuffle else "a pass in the data set's own order"
    return spec, f"loader {spec.name}: {reason}"


def _memory(dataset: Dataset, device: torch.device) -> tuple[float, str]:
    """Return the share of the device's free memory that decoding the data set would take, and a line that says so."""
    if resident.is_decoded(dataset, device):
        return 0.0, "shared with another loader"
    return resident.forecast(dataset, device)


def _fastest_decoder(dataset: Dataset, device: torch.device) -> ExecutorSpec:
    """Return the first installed executor that decodes; the first one of all where none is installed."""
    decoders = [spec for spec in EXECUTORS.values() if spec is not resident.SPEC]
    if device.type == "cuda":
        decoders.sort(key=lambda spec: dataset.format not in spec.gpu_formats)  # stable: the others keep their order
    return next((spec for spec in decoders if spec.installed()), decoders[0])


def make_executor(
    loader: str, dataset: Dataset, plan: Plan, device: torch.device, threads: int
) -> tuple[Executor, str]:
    """Make the executor that `choose` returns.

    Args:
        loader: one of `LOADERS`.
        plan: the plan whose batches it will cut.
        device: where the batches go.
        threads: threads for decoding.

    Returns:
        the executor, and the line that says which one was chosen and why.

    Raises:
        ValueError: there is no such loader, it does not offer a view's filter, or the data set does not fit into
            memory.
        ModuleNotFoundError: the executor's package is not installed.
    """
    spec, note = choose(loader, dataset, device, plan.shuffle)
    for view in plan.views:
        if view.resize not in spec.filters:
            offered = ", ".join(spec.filters)
            raise ValueError(f"loader {spec.name} does not resize by '{view.resize}'; take --resize {offered}")
    return spec.make(dataset, plan, device, threads), note
