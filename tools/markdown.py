"""Writes text of any origin into Markdown so that it is displayed literally and never taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipelines.printable import printable

# Characters that can start inline markup, and the parts of an address that Markdown would turn into a link.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~$&@]|:(?=//)|(?<=\bwww)\.")


def escaped(value: object) -> str:
    """Return a value as literal text for the inside of a line or for a table cell, but not for the start of a line."""
    return _MARKUP.sub(r"\\\g<0>", printable(str(value)).strip())


def code(value: object) -> str:
    """Return a value as inline code, also for a table cell; backticks in the value cannot end the code."""
    text = printable(str(value)).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are already Markdown; all columns but the first are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
