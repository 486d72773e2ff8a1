"""A recording of torch operations that can be run again without the Python code that asked for them.

It is to a CPU what a CUDA graph is to a GPU. A function runs once, and every operation is noted with the memory that it
reads and writes; a replay runs the noted operations again on that memory. Whatever Python decided or computed
on the way (a branch, a learning rate as a number, a random draw) is what it was while recording. So a step that replays
rightly here has nothing baked in that a CUDA graph would miss, and tests prove that for every method without a GPU.

What a graph cannot hold is refused, with the line that asked for it: reading a value of the device on the host, random
numbers, results whose shape depends on values.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ROOT = Path(__file__).resolve().parents[2]


class Unrecordable(RuntimeError):
    """The step does something that a recording cannot hold; the message names the line."""


@dataclass(frozen=True)
class _Call:
    """An operation, its arguments, and those results that lie in memory of their own."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[tuple[int, Tensor], ...]


class Tape:
    """Records steps on a CPU (see `recordings.Recorder`)."""

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Runs the function once and notes its operations.

        Returns:
            (a call that runs the operations again, what the function returned).

        Raises:
            Unrecordable: names the line that reads the device, draws random numbers, or makes a shape of values.
        """
        calls: list[_Call] = []
        with _Notes(calls):
            result = function()
        return partial(_replay, calls), result


@torch.no_grad()
def _replay(calls: Sequence[_Call]) -> None:
    """Runs noted operations again; results go into the memory that they had while recording."""
    for call in calls:
        found = tree_leaves(call.function(*call.args, **call.kwargs))
        for position, output in call.outputs:
            output.copy_(found[position])


class _Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self, calls: list[_Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._calls = calls

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        _refuse(function, args, kwargs)
        result = function(*args, **kwargs)
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        outputs = tuple(
            (position, leaf)
            for position, leaf in enumerate(tree_leaves(result))
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known
        )
        self._calls.append(_Call(function, args, kwargs, outputs))
        return result


_REASONS = {
    torch.Tag.nondeterministic_seeded: "draws random numbers",
    torch.Tag.data_dependent_output: "reads a value of the device",
    torch.Tag.dynamic_output_shape: "makes a result whose shape depends on values",
}


def _refuse(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for tag, reason in _REASONS.items():
        if tag in function.tags and not (
            tag is torch.Tag.nondeterministic_seeded and _drops_nothing(function, args, kwargs)
        ):
            raise Unrecordable(f"{_place()} {reason} ({function}) inside a step, which no recording can hold")


def _drops_nothing(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function draws random numbers for dropout alone, as attention does, and its probability is zero."""
    for position, argument in enumerate(function._schema.arguments):
        if argument.name == "dropout_p":
            given = args[position] if position < len(args) else kwargs.get("dropout_p", argument.default_value)
            return bool(given == 0)
    return False


def _place() -> str:
    """The innermost line of the project that is being run, as FILE:LINE."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path != Path(__file__) and path.is_relative_to(_ROOT) and ".venv" not in path.parts:
            return f"{path.relative_to(_ROOT)}:{frame.lineno}"
    return "the step"
