"""Free memory on the host or on a GPU, and the return of freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device, in bytes.

    Processes that a launcher started on one host (LOCAL_WORLD_SIZE) each get an equal share of the host's memory. A GPU
    is assumed to have one process.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(min(_available(), _left_in_container())) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not say how much memory is available")


def _left_in_container() -> float:
    """Return the bytes that are left of the container's limit; infinity where there is no limit."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else max(0, int(limit) - int(used))


def release_memory() -> None:
    """Return memory that this process has freed to the system.

    glibc keeps freed memory in pieces, which are too small for a pass over a data set: without this call, training grew
    by 35 MiB an epoch.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)
