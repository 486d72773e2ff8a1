"""Options of the command lines, declared as fields of frozen dataclasses.

A field that `option` makes carries its help text, its legal values and its names. Parsers are generated from such
fields (`describe`), and `check_options` refuses a value that its field does not allow, in one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints


class Shortcut(NamedTuple):
    """A flag without a value that stands for one value of an option, such as `--sweep` for a list of rates."""

    flag: str
    value: Any
    help: str


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[Any, ...] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    metavar: str = "",
    formerly: str = "",
    instead_of: str = "",
    shortcut: Shortcut | None = None,
) -> Any:
    """Return a dataclass field that the command line offers as an option.

    Args:
        help: a noun phrase that says what the value is, with its unit.
        choices: the legal values; empty allows any.
        at_least, at_most: inclusive bounds of a number, or of each number of a tuple.
        above: an exclusive lower bound.
        metavar: the placeholder of the value in the help text, such as FILE; empty takes one for the type.
        formerly: the field's name in earlier versions. Their files hold it, and the command line still takes it.
        instead_of: the name of another option of the same class; at most one of the two may be given.
        shortcut: a further flag that stands for one value of this option.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": choices,
            "at_least": at_least,
            "at_most": at_most,
            "above": above,
            "metavar": metavar,
            "formerly": formerly,
            "instead_of": instead_of,
            "shortcut": shortcut,
        },
    )


@dataclass(frozen=True)
class Option:
    """A field that `option` made, described for a parser.

    Attributes:
        kind: the type of the value; `tuple` for several numbers or names.
        element: the type of each element of a tuple; otherwise `kind`.
    """

    name: str
    kind: type
    element: type
    default: Any
    help: str
    choices: tuple[Any, ...]
    metavar: str
    formerly: str
    instead_of: str
    shortcut: Shortcut | None

    @property
    def flag(self) -> str:
        return _flag(self.name)

    def help_with(self, default: Any) -> str:
        """Return the help text with the legal values and the default, as far as the text does not name them."""
        allowed = ", ".join(str(choice) for choice in self.choices if choice is not None)
        text = self.help if allowed in self.help else f"{self.help}: {allowed}"
        named = default in (None, "", ()) or "default" in text
        return text if named else f"{text} (default: {as_text(default)})"


def describe(cls: type) -> list[Option]:
    """Return the options of a dataclass in the order of its fields; other fields are left out."""
    hints = get_type_hints(cls)
    return [
        Option(
            item.name,
            *_kind_of(hints[item.name]),
            None if item.default is MISSING else item.default,
            **{name: item.metadata[name] for name in _DESCRIBED},
        )
        for item in fields(cls)
        if "help" in item.metadata
    ]


def check_options(instance: Any) -> None:
    """Compare every option of a dataclass instance with the values that its field allows.

    Raises:
        ValueError: a value is not legal; the message names the option, its value and what it may be.
    """
    for item in fields(instance):
        value, allowed = getattr(instance, item.name), item.metadata
        if allowed.get("choices") and value not in allowed["choices"]:
            names = ", ".join(str(choice) for choice in allowed["choices"] if choice is not None)
            raise ValueError(f"{_flag(item.name)} is '{value}'; take one of {names}")
        if value is None:
            continue
        low, high, above = (allowed.get(name) for name in ("at_least", "at_most", "above"))
        numbers = value if isinstance(value, tuple) else (value,)
        given = as_text(value) if isinstance(value, tuple) else value
        if low is not None and not all(low <= number <= (math.inf if high is None else high) for number in numbers):
            legal = f"{low:g} to {high:g}" if high is not None else f"at least {low:g}" if low else "0 or more"
            raise ValueError(f"{_flag(item.name)} is {given}; give {legal}")
        if above is not None and not all(number > above for number in numbers):
            what = "a number above {:g}"
            if isinstance(value, tuple):
                kind = "whole numbers" if all(isinstance(number, int) for number in numbers) else "numbers"
                what = f"{kind} above {{:g}}, such as {as_text(item.default)}"
            raise ValueError(f"{_flag(item.name)} is {given}; give {what.format(above)}")


def current_names(values: Mapping[str, Any], *classes: type) -> dict[str, Any]:
    """Return `values` of an earlier version's file under the names that the fields of `classes` have now."""
    renamed = {item.formerly: item.name for cls in classes for item in describe(cls) if item.formerly}
    return {renamed.get(name, name): value for name, value in values.items()}


def as_text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(as_text(element) for element in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


_DESCRIBED = ("help", "choices", "metavar", "formerly", "instead_of", "shortcut")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _kind_of(hint: Any) -> tuple[type, type]:
    """Return `Option.kind` and `Option.element` of a type hint, ignoring that it may be None."""
    kind = next(arg for arg in get_args(hint) if arg is not NoneType) if isinstance(hint, UnionType) else hint
    return (tuple, get_args(kind)[0]) if get_origin(kind) is tuple else (kind, kind)
