"""Run a function on several gloo processes of this machine and bring its results back."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_PATIENCE_S = 240  # a function takes seconds, on a machine under load a minute


def run(function: Callable[..., Any], processes: int, *args: Any) -> list[Any]:
    """What `function(*args)` returns on each of `processes` ranks, by rank.

    The function must be importable (at module level); arguments and results are what `torch.save` takes. With one
    process it runs here, without torch.distributed: the reference that the others are compared with.
    """
    if processes == 1:
        return [function(*args)]
    with tempfile.TemporaryDirectory() as folder:
        _join(mp.spawn(_rank, (processes, folder, function, args), nprocs=processes, join=False))
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(processes)]


def _rank(rank: int, processes: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes, timeout=timedelta(seconds=60))
    torch.save(function(*args), Path(folder) / f"{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's destructors may wait for ever, see tools/run/process_group.py


def _join(ranks: mp.ProcessContext) -> None:
    """Waits until all ranks have ended well; raises what one of them raised."""
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while not ranks.join(timeout=1):
            assert time.monotonic() < deadline, f"the ranks have not ended within {_PATIENCE_S} s"
    finally:
        for process in ranks.processes:
            process.kill()
