"""How far a run is: what checkpoints carry beside tensors, what it refuses to go on from, and what it ends with."""

from __future__ import annotations

import reprlib
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import torch

from models.method import Method
from models.storage import checkpoint
from models.storage.manifest import Damaged
from pipelines.printable import shown
from tools.command_line import Failure
from tools.run.folder import RunFolder

_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


def fresh_state(options: Namespace, config: Mapping[str, Any]) -> dict[str, Any]:
    """The state at step 0.

    `best_top1` is the highest kNN accuracy after any training; `seconds` is training time over all resumes; `rows` are
    the rows of metrics that belong to it; the last line is what must stay the same when the run goes on.
    """
    return {
        "step": 0, "samples_seen": 0, "seconds": 0.0, "rows": 0, "loss": None,
        "knn_top1": None, "knn_step": None, "best_top1": None, "shown_step": 0,
        "recent_losses": [], "in_spike": False, "skipped_steps": 0,
        "method": config["method"], "seed": options.seed, "accumulate": options.accumulate,
        "data_checksum": config["data"]["checksum"], "recipe": config["recipe"],
    }  # fmt: skip


def check_state(state: Mapping[str, Any]) -> None:
    """Refuses the state of a checkpoint that no run can go on from.

    Raises:
        Damaged: naming the field and its value, on one line.
    """
    if missing := _NEEDED.keys() - state.keys():
        raise Damaged(f"state.json: {min(missing)} is missing")
    for name, right in (_NEEDED | _FURTHER).items():
        if name in state and not right(state[name]):
            raise Damaged(f"state.json: {name} is {reprlib.repr(state[name])}")


def refuse_another_run(checkpoint: dict[str, Any], asked: dict[str, Any]) -> None:
    """Compares what a checkpoint's run was with what is asked for now.

    Raises:
        Failure: another method, seed or recipe value, or other data.
    """
    fixed = {name: asked[name] for name in ("method", "seed", "accumulate")}
    for name, value in (fixed | asked["recipe"]).items():
        was = (checkpoint | checkpoint["recipe"]).get(name)
        if was != value:
            told = shown(str(was))[:80]
            raise Failure(f"the run was started with {name} {told}, not {value}; give the same, or another --output")
    if checkpoint["data_checksum"] != asked["data_checksum"]:
        raise Failure("the run was trained on other data than --data; give that, or another --output")


def go_on(
    folder: RunFolder, method: Method, optimizer: torch.optim.Optimizer, scaler: Any, state: dict[str, Any]
) -> list[str]:
    """Restores the newest valid checkpoint into method, optimizer, fp16's scaler and `state`; what to tell about it.

    Raises:
        Failure: it is of another run; or there are checkpoints, and none can be read, or the disk does not let anybody
            know: nothing is touched then.
    """
    mend = "mend that, or start anew with --force instead of --resume"
    try:
        found, notes = checkpoint.newest(folder.checkpoints, check_state)
    except OSError as error:
        raise Failure(f"{error}; {mend}") from None
    if found is None and notes:
        raise Failure(f"none of the {len(notes)} checkpoints in {folder.checkpoints} can be read: {notes[0]}; {mend}")
    if found is None:
        folder.rewind(0, 0)
        return [f"{shown(str(folder.checkpoints))} holds no checkpoint; starting from the first step"]
    refuse_another_run(found.state, state)
    try:
        found.apply(method, optimizer)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise Failure(
            f"{found.path} is of another network ({reason}); give the run's code, or another --output"
        ) from None
    state |= {name: value for name, value in found.state.items() if name != "optimizer"}
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])
    return [*notes, f"resumed from {shown(str(found.path))}", *folder.rewind(state["step"], state["rows"])]


def summary(state: Mapping[str, Any], config: Mapping[str, Any], knn_protocol: str | None) -> dict[str, Any]:
    """What summary.json holds."""
    return {
        "method": state["method"], "final_loss": state["loss"], "knn_top1": state["knn_top1"],
        "knn_protocol": knn_protocol, "step": state["step"], "samples_seen": state["samples_seen"],
        "seconds": round(state["seconds"], 2), "versions": config["versions"], "machine": config["machine"],
    }  # fmt: skip


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # neither infinite nor no number


def _is_scaler(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(value.get(name)) for name in _SCALER)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _or_none(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or right(value)


# What each field must be. Where one of the second kind is missing it is as at the start.
_NEEDED: dict[str, Callable[[Any], bool]] = {
    "step": _is_count, "samples_seen": _is_count, "rows": _is_count, "seconds": _is_number,
    "method": _is(str), "seed": _is(int), "accumulate": _is(int), "data_checksum": _is(str), "recipe": _is(dict),
}  # fmt: skip
_FURTHER: dict[str, Callable[[Any], bool]] = {
    "loss": _or_none(_is_number), "knn_top1": _or_none(_is_number), "best_top1": _or_none(_is_number),
    "knn_step": _or_none(_is_count), "shown_step": _or_none(_is_count), "skipped_steps": _is_count,
    "recent_losses": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "in_spike": _is(bool), "scaler": _is_scaler,
}  # fmt: skip
