"""How far a run is: the values, beside tensors, that its checkpoints and its summary hold."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from models.methods.recipes import as_json, defaults_of
from models.methods.registry import REGISTRY
from models.storage.manifest import CorruptCheckpoint
from models.training.config import with_current_names
from tools.command_line import Failure

_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


@dataclass
class RunState:
    """The state of a run after a step. Every checkpoint holds it in state.json.

    Attributes:
        method, seed, accumulate, data_checksum, recipe: what a resumed run must have in common with the original.
        step: the number of optimizer steps made.
        samples_seen: the number of images trained on, over all processes.
        seconds: the training time, over all starts of the run.
        rows: the number of rows of metrics.jsonl logged so far.
        loss: the last loss logged.
        knn_top1, knn_step: the newest kNN accuracy in percent, and the step of the newest evaluation.
        best_top1: the highest kNN accuracy so far, without that of the untrained network.
        held_out_checksum: of the images that kNN was measured on; accuracies on other images are not compared.
        shown_step: the step at which the tracker last got pictures.
        recent_losses, in_spike: the memory of the loss-spike alarm.
        skipped_steps: the number of updates that fp16's gradient scaler skipped.
        extensions: epochs that were added to the run: the epoch from which, and the learning rate (`extension.py`).
        scaler: the state of fp16's gradient scaler.
    """

    method: str
    seed: int
    accumulate: int
    data_checksum: str
    recipe: dict[str, Any]
    step: int = 0
    samples_seen: int = 0
    seconds: float = 0.0
    rows: int = 0
    loss: float | None = None
    knn_top1: float | None = None
    knn_step: int | None = None
    best_top1: float | None = None
    held_out_checksum: str | None = None
    shown_step: int | None = 0
    recent_losses: list[float] = field(default_factory=list)
    in_spike: bool = False
    skipped_steps: int = 0
    extensions: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what state.json holds, as a deep copy."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name != "scaler" or value is not None}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint; fields that its version did not have keep their value."""
        for item in fields(self):
            if item.name in saved and item.name != "recipe":
                setattr(self, item.name, saved[item.name])

    def refuse_another_run(self, saved: Mapping[str, Any]) -> None:
        """Compare this run with the run of a checkpoint.

        Raises:
            Failure: method, seed, number of micro-batches, a value of the recipe, the data or the held-out images
                differ.
        """
        unsaid = as_json(defaults_of(self.method)) if self.method in REGISTRY else {}  # fields of a later version
        was = {**unsaid, **saved, **with_current_names(saved["recipe"])}
        fixed = {name: getattr(self, name) for name in ("method", "seed", "accumulate")}
        for name, value in (fixed | self.recipe).items():
            if was.get(name) != value:
                before = reprlib.repr(was.get(name)).strip("'")
                raise Failure(
                    f"the run was started with {name} {before}, not {value}; give the same, or another --output"
                )
        if saved["data_checksum"] != self.data_checksum:
            raise Failure("the run was trained on other data than --data; give that, or another --output")
        if saved.get("held_out_checksum") not in (None, self.held_out_checksum):
            raise Failure(
                "the run's kNN was measured on other held-out images; give those with --val-data, or another --output"
            )

    def summary(self, config: Mapping[str, Any], knn_protocol: str | None) -> dict[str, Any]:
        """Return what summary.json holds.

        Args:
            config: what config.json holds.
            knn_protocol: the protocol id of the kNN monitor; None without one.
        """
        return {
            "method": self.method,
            "final_loss": self.loss,
            "knn_top1": self.knn_top1,
            "knn_protocol": knn_protocol,
            "held_out": config.get("held_out"),
            "step": self.step,
            "samples_seen": self.samples_seen,
            "seconds": round(self.seconds, 2),
            "versions": config["versions"],
            "machine": config["machine"],
        }


def check_state(saved: Mapping[str, Any]) -> None:
    """Refuse a state.json from which no run can resume.

    Raises:
        CorruptCheckpoint: a field is missing or has an impossible value; the message names both.
    """
    if missing := _NEEDED.keys() - saved.keys():
        raise CorruptCheckpoint(f"state.json: {min(missing)} is missing")
    for name, is_right in (_NEEDED | _FURTHER).items():
        if name in saved and not is_right(saved[name]):
            raise CorruptCheckpoint(f"state.json: {name} is {reprlib.repr(saved[name])}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # neither infinite nor NaN


def _is_scaler(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(value.get(name)) for name in _SCALER)


def _is_extension(value: Any) -> bool:
    return isinstance(value, dict) and _is_count(value.get("from_epoch")) and _is_number(value.get("lr"))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


# The test of each field. A field of the second group may be missing, and then has the value of a new run.
_NEEDED: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "samples_seen": _is_count,
    "rows": _is_count,
    "seconds": _is_number,
    "method": _is(str),
    "seed": _is(int),
    "accumulate": _is(int),
    "data_checksum": _is(str),
    "recipe": _is(dict),
}
_FURTHER: dict[str, Callable[[Any], bool]] = {
    "loss": _or_none(_is_number),
    "knn_top1": _or_none(_is_number),
    "best_top1": _or_none(_is_number),
    "knn_step": _or_none(_is_count),
    "shown_step": _or_none(_is_count),
    "held_out_checksum": _or_none(_is(str)),
    "skipped_steps": _is_count,
    "recent_losses": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "in_spike": _is(bool),
    "extensions": lambda value: isinstance(value, list) and all(map(_is_extension, value)),
    "scaler": _or_none(_is_scaler),
}
