"""What a function asks of the device: how many kernels, and for how long they keep it busy, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tools.benchmarks.measure import synchronize


class DeviceWork(NamedTuple):
    """The work of one call: the number of kernels and copies, and the sum of their durations in milliseconds."""

    kernels: float
    milliseconds: float


def device_work(function: Callable[[], object], device: str, calls: int = 5) -> DeviceWork:
    """Return the device's work in a call of `function`, averaged over `calls` calls; on a CPU, torch's operations.

    Kernels that run side by side count twice, and on a CPU operations within others, so that the sum can be longer
    than a call takes.
    """
    kind, activity = DeviceType.CPU, ProfilerActivity.CPU
    if device != "cpu":
        kind, activity = DeviceType.CUDA, ProfilerActivity.CUDA
    function()
    synchronize(device)
    with profile(activities=[activity]) as profiler:
        for _ in range(calls):
            function()
        synchronize(device)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = profiler.profiler.kineto_results.events()  # raw: torch's own tree of them takes many times as long
    work = [event for event in events if event.device_type() == kind and not event.is_user_annotation()]
    return DeviceWork(len(work) / calls, sum(event.duration_ns() for event in work) / 1e6 / calls)
