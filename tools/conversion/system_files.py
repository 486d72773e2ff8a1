"""Files and folders that systems leave beside pictures: thumbnails, previews, recycle bins. They are never images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

# Hidden names; resource forks and indexes of macOS; thumbnails and bins of Synology, QNAP, Windows and galleries.
LEFT_BY_SYSTEMS = re.compile(
    r"\..*|__MACOSX|Icon\r|@eaDir|@Recycle|@Recently-Snapshot|@__thumb|@tmp|#recycle|#snapshot|\$RECYCLE\.BIN|RECYCLER|"
    r"System Volume Information|lost\+found|Network Trash Folder|Temporary Items|TheVolumeSettingsFolder|"
    r"thumbs\.db|ehthumbs(_vista)?\.db|_thumbnails?|_thumbs|desktop\.ini|picasa\.ini|zbthumbnail\.info|__pycache__",
    re.IGNORECASE,
)


def ignored_prefix(parts: Sequence[str]) -> str | None:
    """Return the path up to the first name that a system left; None if every name is the user's own."""
    for number, part in enumerate(parts):
        if part != ".." and LEFT_BY_SYSTEMS.fullmatch(part):
            return "/".join(parts[: number + 1])
    return None


def summary(ignored: Iterable[str], most: int = 6) -> str:
    """Return how many paths of each kind were ignored: "3 @eaDir, 120 *.xml, README.md"."""
    kinds = Counter(map(_kind, ignored))
    ordered = sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0]))
    words = [f"{count:,} {kind}" if count > 1 else kind for kind, count in ordered[:most]]
    return ", ".join(words) + (f" and {len(kinds) - most} other kinds" if len(kinds) > most else "")


def _kind(path: str) -> str:
    """A name that systems leave counts as itself, another file by its ending."""
    name = path.rpartition("/")[2]
    if name.startswith("._"):
        return "._*"
    ending = os.path.splitext(name)[1]
    return name if LEFT_BY_SYSTEMS.fullmatch(name) or not ending else f"*{ending.lower()}"
