"""Options with a default, a sentence of help and their legal values: fields of frozen dataclasses.

The command line is made from them, and `check_options` refuses what they do not allow, in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[Any, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    formerly: str = "",
) -> Any:
    """A dataclass field that the command line offers.

    Args:
        help: what it is; names the unit where there is one.
        choices: the values that it may have; any where empty.
        at_least, above: bounds of a number, inclusive and exclusive.
        formerly: the name that it had in earlier versions; their files hold it, and the command line still takes it.
    """
    about = {"help": help, "choices": choices, "at_least": at_least, "above": above, "formerly": formerly}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Option:
    """What the command line needs to know of a field."""

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...]
    formerly: str

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def describe(cls: type) -> list[Option]:
    """Every option of a dataclass, in the order of its fields."""
    return [
        Option(
            item.name,
            None if item.default is MISSING else item.default,
            str(item.metadata.get("help", "")),
            tuple(item.metadata.get("choices", ())),
            str(item.metadata.get("formerly", "")),
        )
        for item in fields(cls)
    ]


def check_options(instance: Any) -> None:
    """Compares every option of a dataclass instance with the values that its field allows.

    Raises:
        ValueError: names the option, its value and what it may be.
    """
    for item in fields(instance):
        value, allowed = getattr(instance, item.name), item.metadata
        flag = f"--{item.name.replace('_', '-')}"
        if allowed.get("choices") and value not in allowed["choices"]:
            names = ", ".join(str(choice) for choice in allowed["choices"] if choice is not None)
            raise ValueError(f"{flag} is '{value}'; take one of {names}")
        low, above = allowed.get("at_least"), allowed.get("above")
        if low is not None and not value >= low:
            raise ValueError(f"{flag} is {value}; give {f'at least {low:g}' if low else '0 or more'}")
        if above is not None and not value > above:
            raise ValueError(f"{flag} is {value}; give a number above {above:g}")


def current_names(values: Mapping[str, Any], *classes: type) -> dict[str, Any]:
    """`values` of an earlier version's file under the names that the fields of `classes` have now."""
    renamed = {item.formerly: item.name for cls in classes for item in describe(cls) if item.formerly}
    return {renamed.get(name, name): value for name, value in values.items()}
