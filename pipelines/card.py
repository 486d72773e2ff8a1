"""The small files beside the images: the card, which says what they are, and the list of their names.

photos.beton     photos.beton.json         photos.beton.names
photos-shards/   photos-shards/card.json   photos-shards/names
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

CARD_FORMAT = "likeness-card"
CARD_VERSION = 1


class DatasetError(ValueError):
    """The data set cannot be used; the message is one line with what, where and how to mend it."""


def card_path(path: str | os.PathLike[str]) -> Path:
    return Path(path) / "card.json" if os.path.isdir(path) else Path(f"{os.fspath(path)}.json")


def names_path(path: str | os.PathLike[str]) -> Path:
    return Path(path) / "names" if os.path.isdir(path) else Path(f"{os.fspath(path)}.names")


def write_card(path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Writes the card of the file or folder `path`, whole or not at all."""
    described = {key: value for key, value in card.items() if key not in ("format", "version")}
    write_json(card_path(path), {"format": CARD_FORMAT, "version": CARD_VERSION, **described})


def write_json(target: Path, value: dict[str, Any]) -> None:
    """Writes a small file, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="ascii") as file:  # other characters, and undecodable names, are escaped
            json.dump(value, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_card(path: Path) -> dict[str, Any]:
    """The card of the file or folder `path`.

    Raises:
        DatasetError: there is none, or it is none of ours.
    """
    card_at = card_path(path)
    try:
        card = json.loads(card_at.read_text(encoding="utf-8"))
    except FileNotFoundError:
        where, what = ("in it", "the whole folder") if path.is_dir() else ("beside it", "both")
        raise DatasetError(
            f"{path} has no card {card_at.name} {where}; copy {what}, or convert again with: "
            f"python -m tools.convert SOURCE {path} --force"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"the card {card_at} cannot be read ({error}); convert the source again") from None
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        raise DatasetError(f"{card_at} is not a card of a converted data set; convert the source again")
    if card.get("version") != CARD_VERSION:
        raise DatasetError(
            f"the card {card_at} has version {card.get('version')} and this program reads {CARD_VERSION}; "
            "convert the source again"
        )
    return card


def write_names(path: str | os.PathLike[str], names: list[str]) -> None:
    """Writes the images' source names, one a line; a line break in a name is escaped, undecodable bytes are kept."""
    lines = [name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in names]
    with open(names_path(path), "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """The images' names in the source, in index order; empty if the list was not kept."""
    try:
        text = names_path(path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    escapes = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    return [re.sub(r"\\[\\nr]", lambda match: escapes[match[0]], line) for line in text.split("\n")[:-1]]
