"""Names that others chose - of files, classes and sources - as text that can be shown."""

from __future__ import annotations


def printable(name: str) -> str:
    """A name as it can be printed on any terminal, on one line.

    Escaped are bytes that are no UTF-8 (surrogates), control characters, line breaks, and what turns the direction of
    writing or has no width.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
