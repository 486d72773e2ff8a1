"""Records in config.json when a run was resumed, and what had changed; the original configuration stays as it was.

    "resumed": [{"step": 1200, "time": "2026-01-31T12:00:00+00:00", "changed": {"options.precision": "bf16"}}]

`changed` holds what differs from the last start: options, versions, machine, commit, number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from models.training.config import with_current_names
from pipelines.printable import printable

#: They may differ at every resume and do not affect what is trained.
_NO_CHANGE = ("options.resume", "options.force", "options.init", "options.init_network", "options.extend")
_WIDTH = 60  # the number of characters of a value that are shown


def resumed(first: Any, now: Mapping[str, Any], step: int) -> tuple[dict[str, Any], str]:
    """Add a resume to a configuration.

    Args:
        first: what config.json holds; if that is not a configuration, `now` takes its place.
        now: the configuration with which the run resumes.
        step: the step at which it resumes.

    Returns:
        The new content of config.json, and a line that says what changed; empty if nothing did.
    """
    entry: dict[str, Any] = {"step": step, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    if not isinstance(first, dict) or not isinstance(first.get("recipe"), dict):
        line = "warning: config.json was missing or damaged; it now holds the configuration of this start"
        return {**now, "resumed": [entry | {"config": "was lost: this is what was asked here"}]}, line
    entries = first.get("resumed", [])
    entries = entries if isinstance(entries, list) else []
    before = _flat(first | {"recipe": with_current_names(first["recipe"])})
    for earlier in entries:
        known = earlier.get("changed") if isinstance(earlier, dict) else None
        before |= known if isinstance(known, dict) else {}
    changed = {name: value for name, value in _flat(now).items() if before.get(name) != value}
    changes = [f"{name.split('.')[-1]} {_text(before.get(name))} -> {_text(value)}" for name, value in changed.items()]
    line = f"changed since the run's last start: {', '.join(changes)}" if changes else ""
    kept = {"extended": now["extended"]} if "extended" in now else {}
    return {**first, **kept, "resumed": [*entries, entry | {"changed": changed}]}, line


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by "section.name", without the sources of a recipe's values and without earlier resumes."""
    found: dict[str, Any] = {}
    for section, value in config.items():
        if isinstance(value, dict):
            found |= {f"{section}.{name}": inner for name, inner in value.items()}
        else:
            found[section] = value
    return {
        name: v
        for name, v in found.items()
        if name not in _NO_CHANGE and not name.startswith(("sources", "resumed", "extended"))
    }


def _text(value: Any) -> str:
    text = printable("none" if value is None else str(value))
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."
