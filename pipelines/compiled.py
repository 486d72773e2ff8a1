"""What is compiled, when, and what happens where nothing can be.

`compiled` turns a function into one fused graph at its first call. `hot` marks the functions that the methods run at
every step: they are written in plain torch, and one switch for the whole process, off until `compile_hot_path` turns it
on, decides how they run. Both modes compute the same, in the same memory.
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
    """Sets how every `hot` function of this process runs from now on; call it once, before the first step.

    What is compiled is kept between runs, in a folder of its own for each rank, because two processes that write one
    cache at once can disturb each other: `$TORCHINDUCTOR_CACHE_DIR/rank-N`, or in `~/.cache/likeness` where that is not
    set.
    """
    global _hot_path_is_compiled
    _hot_path_is_compiled = enabled
    if enabled:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "likeness"
        base, own = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or home), f"rank-{rank}"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(base if base.name == own else base / own)


def hot(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function of the hot path: pure torch, no host synchronisation, all sizes free to change."""
    # Sizes are symbols from the start: a short last batch or another queue meets a graph that exists.
    fused = compiled(function, "a part of the hot path", dynamic=True)

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        if _hot_path_is_compiled and not torch.compiler.is_compiling():  # inside another graph it becomes part of it
            return fused(*arguments, **keywords)
        return function(*arguments, **keywords)

    return call


def compiled(function: Callable[P, R], name: str, dynamic: bool | None = None) -> Callable[P, R]:
    """The compiled function, or after one line of explanation the plain one where nothing can be compiled.

    Args:
        function: its graph must have no breaks.
        name: what the explanation calls it.
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
