"""Options with a default and a sentence of help: fields of frozen dataclasses, from which the command line is made."""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from typing import Any


def option(default: Any, help: str) -> Any:
    """A dataclass field that the command line offers; `help` names the unit where there is one."""
    return field(default=default, metadata={"help": help})


def describe(cls: type) -> list[tuple[str, Any, str]]:
    """(name, default, help) of every option of a dataclass."""
    return [
        (item.name, None if item.default is MISSING else item.default, str(item.metadata.get("help", "")))
        for item in fields(cls)
    ]
