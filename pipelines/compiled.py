"""torch.compile for the project: which functions are compiled, when, and what happens where nothing can be compiled.

`compiled` turns a function into one fused graph at its first call. `hot` marks the functions that the methods run in
every step. They are written in plain torch. One switch for the process, `compile_hot_path`, decides whether they are
compiled; it is off at first. Both ways compute the same with the same memory.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_FAILURES = (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit)
_hot_path_is_compiled = False


def compile_hot_path(enabled: bool, rank: int = 0) -> None:
    """Set whether every `hot` function of this process is compiled; call it once, before the first step.

    Machine code is kept between runs, in one folder for each rank, because two processes that write to one cache can
    disturb each other: `$TORCHINDUCTOR_CACHE_DIR/rank-N`, or `~/.cache/likeness/rank-N` where that is not set.

    Args:
        enabled: whether to compile.
        rank: number of this process.
    """
    global _hot_path_is_compiled
    _hot_path_is_compiled = enabled
    if enabled:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "likeness"
        base, own = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or home), f"rank-{rank}"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(base if base.name == own else base / own)


def hot(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of the hot path: plain torch, no host synchronisation, sizes that may change between calls."""
    # Sizes are symbols from the start, so a short last batch or another queue needs no new graph.
    fused = compiled(function, "a part of the hot path", dynamic=True)

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        if _hot_path_is_compiled and not torch.compiler.is_compiling():  # another graph includes it
            return fused(*arguments, **keywords)
        return function(*arguments, **keywords)

    return call


def compiled(function: Callable[P, R], name: str, dynamic: bool | None = None) -> Callable[P, R]:
    """Return the compiled function; where it cannot be compiled it prints one line and runs as plain torch.

    Args:
        function: the function; its graph must have no breaks.
        name: what the line calls it.
        dynamic: as in torch.compile.
    """
    fused = torch.compile(function, fullgraph=True, dynamic=dynamic)
    failed = False

    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        nonlocal failed
        if not failed:
            try:
                return fused(*arguments, **keywords)
            except _FAILURES as error:
                failed = True
                reason = str(error).strip().splitlines()[0]
                print(f"{name} runs uncompiled, more slowly: {reason}", file=sys.stderr)
        return function(*arguments, **keywords)

    return call
