"""How many threads a process may use. No other file counts cores."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Return the number of cores that this process may run on; a container or a scheduler may allow only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores(asked: int = 0) -> int:
    """Return the number of threads of this process: `asked`, or where that is 0, its share of the cores.

    Processes that a launcher starts on one machine (LOCAL_WORLD_SIZE) share the cores evenly; each has at least one.
    """
    return asked or max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
