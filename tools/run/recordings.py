"""What records a step: CUDA graphs on a GPU. On a CPU nothing does but in tests, where `Tape` takes their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

_WARM_UPS = 3  # calls before recording: compilers, cuDNN and the allocator settle in them


class Recorder(Protocol):
    """Turns a function of fixed memory into something that can be run again without its Python code."""

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Records a function.

        The function is called at least once, and what it writes may have been written any number of times.

        Returns:
            (a call that runs the recording, what the function returned; its tensors hold the newest run's results).

        Raises:
            RuntimeError: the function cannot be recorded.
        """
        ...


class CudaGraphs:
    """Records CUDA graphs that share one pool of memory: of two of them, only one runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Calls the function a few times, then captures it. Other threads must rest meanwhile (`Loader.parked`)."""
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(beside)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = function()
        return graph.replay, result
