"""How many threads a process may use: the one place that counts cores."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may run on; a container or a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores(asked: int = 0) -> int:
    """The threads of this process: as many as were asked for, else its share of the cores.

    Processes that a launcher starts on one machine (LOCAL_WORLD_SIZE) share them evenly; each has at least one.
    """
    return asked or max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
