"""What changes when a run goes on: config.json keeps what was asked first, and gets an entry for each resume.

    "resumed": [{"step": 1200, "time": "2026-01-31T12:00:00+00:00", "changed": {"options.precision": "bf16"}}]

`changed` is what differs from how it was started last: options, versions, machine, commit, number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from models.training.config import with_current_names
from pipelines.printable import printable

_NO_CHANGE = ("options.resume", "options.force")  # how it was started, not what runs
_WIDTH = 60  # characters of a value that are shown


def resumed(first: Any, now: Mapping[str, Any], step: int) -> tuple[dict[str, Any], str]:
    """A config.json with one more resume in it, and a line that says what changed; nothing where all is as before.

    Args:
        first: what config.json holds; what is no configuration is replaced by `now`.
        now: the configuration that the run goes on with.
        step: at which it goes on.
    """
    entry: dict[str, Any] = {"step": step, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    if not isinstance(first, dict) or not isinstance(first.get("recipe"), dict):
        line = "warning: config.json was missing or damaged; it is written anew from what is asked now"
        return {**now, "resumed": [entry | {"config": "was lost: this is what was asked here"}]}, line
    entries = first.get("resumed", [])
    entries = entries if isinstance(entries, list) else []
    before = _flat(first | {"recipe": with_current_names(first["recipe"])})
    for earlier in entries:
        known = earlier.get("changed") if isinstance(earlier, dict) else None
        before |= known if isinstance(known, dict) else {}
    changed = {name: value for name, value in _flat(now).items() if before.get(name) != value}
    told = [f"{name.split('.')[-1]} {_text(before.get(name))} -> {_text(value)}" for name, value in changed.items()]
    line = f"changed since the run's last start: {', '.join(told)}" if told else ""
    return {**first, "resumed": [*entries, entry | {"changed": changed}]}, line


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values by "section.name"; without where values of a recipe were taken from."""
    found: dict[str, Any] = {}
    for section, value in config.items():
        if isinstance(value, dict):
            found |= {f"{section}.{name}": inner for name, inner in value.items()}
        else:
            found[section] = value
    return {
        name: v for name, v in found.items() if name not in _NO_CHANGE and not name.startswith(("sources", "resumed"))
    }


def _text(value: Any) -> str:
    text = printable("none" if value is None else str(value))
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."
