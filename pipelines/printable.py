"""Names from outside - of files, classes and sources - as text that is safe to print."""

from __future__ import annotations


def printable(name: str) -> str:
    """Return a name as one line that any terminal can print.

    Escaped are bytes that are not UTF-8 (surrogates), control characters, line breaks, characters that change the
    direction of text (bidirectional controls), and characters without width.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
