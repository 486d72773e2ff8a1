"""A source of images as a tree of files: relative name -> where the bytes lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, fetch


class SourceError(ValueError):
    """The source cannot be converted; the message is one line with what, where and how to mend it."""


@dataclass
class SourceTree:
    """The files of a source.

    Attributes:
        name: of the source, for the card.
        files: relative path with "/" -> place.
        bad: (name, reason) of what is listed but cannot be read.
        ignored: hidden files and folders, and what an operating system leaves in archives.
        temporary: file to delete after the conversion.
    """

    name: str
    files: dict[str, ByteRange] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0
    temporary: Path | None = None

    def close(self) -> None:
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)


def read_member(name: str, place: ByteRange) -> bytes:
    """The bytes of a file of a source that must be there and whole, as it says what the images are.

    Raises:
        SourceError: it is not.
    """
    try:
        return fetch(place)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{printable(name)} of the source cannot be used: {reason}; get the source again") from None
