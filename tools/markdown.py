"""Text of any origin in a Markdown document: it is shown as it is and means nothing there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipelines.printable import printable

# What can begin something inside a line, and addresses, which become links by themselves.
_MEANT = re.compile(r"[\\`*_\[\]<>#|~$&@]|:(?=//)|(?<=\bwww)\.")


def escaped(value: object) -> str:
    """A value within a line of text, not at its start, or in a cell of a table."""
    return _MEANT.sub(r"\\\g<0>", printable(str(value)).strip())


def code(value: object) -> str:
    """A value as code, between backticks that it cannot end; also in a cell of a table."""
    text = printable(str(value)).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells that are Markdown already; all but the first column are set to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
