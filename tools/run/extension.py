"""More epochs for a run whose schedule has an end: `--resume --epochs N --extend LR`.

A finished schedule is never changed. The epochs of the run keep their learning rates; those that are added have a
schedule of their own, a warm restart (Loshchilov and Hutter, arXiv 1608.03983): half a cosine from the given rate down
to 0, without warm-up. A run can be extended again. Its checkpoints and config.json hold every extension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.method import Method
from models.training.config import Training
from models.training.optim import cosine_schedule
from pipelines.printable import printable
from tools.command_line import Failure
from tools.run.optimizer import learning_rate


def extensions_of(saved: Mapping[str, Any], epochs: int, rate: float | None, folder: Path) -> list[dict[str, Any]]:
    """Return the extensions of a resumed run, with a new one if there are more epochs.

    Args:
        saved: the state in its checkpoint.
        epochs: those that are asked for now.
        rate: the value of --extend.

    Raises:
        Failure: more epochs without a word on their learning rates, or --extend without more epochs.
    """
    known, before = list(saved.get("extensions", [])), saved["recipe"].get("epochs", epochs)
    if epochs > before and rate is None:
        raise Failure(
            f"the run was started with epochs {before}, not {epochs}, and its learning rate ends with them; "
            f"--extend LR adds epochs that fall from LR to 0, --init {printable(str(folder))} with another --output "
            "starts a new run from its encoder"
        )
    if epochs > before:
        return [*known, {"from_epoch": before, "lr": rate}]
    if rate is not None and (not known or known[-1]["lr"] != rate):
        raise Failure(f"--extend adds epochs to a run of {before}; give --epochs with more than these")
    return known


def check_method(method: Method, steps_per_epoch: int, before: int, epochs: int, folder: Path) -> None:
    """Refuse a method with a schedule of its own that follows the length of the run: that one cannot be extended.

    Args:
        before, epochs: the length of the run without and with the extension.

    Raises:
        Failure: names the scheduled number.
    """
    total = before * steps_per_epoch
    found = []
    for length in (before, epochs):
        method.begin(0, steps_per_epoch, length)
        found.append([method.schedule(step) for step in (0, total // 2, total - 1)])
    changed = [name for name in found[0][0] if any(a[name] != b[name] for a, b in zip(*found, strict=True))]
    if changed:
        raise Failure(
            f"{changed[0]} of this method follows the length of the run and ended with its {before} epochs, so "
            f"--extend has no way to go on; --init {printable(str(folder))} with another --output starts a new run "
            "from its encoder"
        )


def rate_at(training: Training, steps_per_epoch: int, step: int, extensions: Sequence[Mapping[str, Any]]) -> float:
    """Return the learning rate of an optimizer step, counted from 0, by the schedule or the extension it is in."""
    ends = [*(item["from_epoch"] for item in extensions), training.epochs]
    number = sum(step >= end * steps_per_epoch for end in ends[:-1])  # 0: the schedule that the run was started with
    if number == 0:
        return learning_rate(training, steps_per_epoch, step, epochs=ends[0])
    start = ends[number - 1]
    within, length = step - start * steps_per_epoch, ends[number] - start
    share = cosine_schedule(within, steps_per_epoch, length, per_epoch=training.lr_per_epoch)
    return float(extensions[number - 1]["lr"]) * share


def recorded(extensions: Sequence[Mapping[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """Return what config.json holds about the extensions."""
    ends = [*(item["from_epoch"] for item in extensions[1:]), epochs]
    return [
        {**item, "to_epoch": end, "schedule": "half a cosine from lr to 0"}
        for item, end in zip(extensions, ends, strict=True)
    ]


def line(extensions: Sequence[Mapping[str, Any]], training: Training, constant: Sequence[str]) -> str:
    """Return the line about the newest extension.

    Args:
        constant: prefixes of names of parameters whose learning rate stays at its peak.
    """
    last = extensions[-1]
    kept = f"; {', '.join(name.rstrip('.') for name in constant)} keeps {training.lr:g}" if constant else ""
    return (
        f"epochs {last['from_epoch']} to {training.epochs} are an extension: learning rate from {last['lr']:g} to 0 "
        f"along half a cosine, without warm-up{kept}; the epochs before keep their schedule"
    )
