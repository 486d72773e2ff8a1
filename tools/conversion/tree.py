"""A source of images as a tree of files: relative name -> where the bytes lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, fetch
from tools.conversion.system_files import ignored_prefix


class SourceError(ValueError):
    """The source cannot be converted; the message is one line with what, where and how to fix it."""


class BadFiles(ValueError):
    """Files that cannot be converted, as (name, reason)."""

    def __init__(self, bad: list[tuple[str, str]]) -> None:
        super().__init__(f"{len(bad)} files cannot be converted")
        self.bad = bad


@dataclass
class SourceTree:
    """The files of a source.

    Attributes:
        name: of the source, for the card.
        files: relative path with "/" -> place.
        bad: (name, reason) of what is listed but cannot be read.
        ignored: paths of what systems leave beside pictures (`system_files.py`); a folder counts once.
        tars: folders that stand for tars inside the source.
    """

    name: str
    files: dict[str, ByteRange] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    tars: list[str] = field(default_factory=list)

    def ignores(self, name: str) -> bool:
        """Return whether a path is of what systems leave; such a path is remembered in `ignored`."""
        prefix = ignored_prefix(name.split("/"))
        if prefix is not None:
            self.ignored.add(prefix)
        return prefix is not None

    def others(self, used: Iterable[str]) -> set[str]:
        """Return the paths of all that is ignored where only some files are used."""
        return self.ignored | (self.files.keys() - set(used))

    def inside(self, folder: str) -> SourceTree:
        """Return the tree below one of its folders, under the same names.

        Raises:
            SourceError: there is no such folder.
        """
        start = folder.strip("/").removeprefix("./") + "/"
        files = {name: place for name, place in self.files.items() if name.startswith(start)}
        bad = [entry for entry in self.bad if entry[0].startswith(start)]
        if not files and not bad:
            tops = sorted({name.partition("/")[0] for name in self.files if "/" in name})
            hint = f"; it holds {', '.join(map(printable, tops[:5]))}" if tops else ""
            raise SourceError(f"{printable(self.name)} holds no files in a folder {printable(folder)}{hint}")
        ignored = {name for name in self.ignored if name.startswith(start)}
        tars = [name for name in self.tars if f"{name}/".startswith(start)]
        return replace(self, files=files, bad=bad, ignored=ignored, tars=tars)


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
