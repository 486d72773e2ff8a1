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

from pipelines.formats.digests import hexadecimal
from pipelines.formats.regular_file import content, regular

CARD_FORMAT = "likeness-card"
CARD_VERSION = 1
MAX_CARD = 256 << 20  # characters; what one file that was left out takes is less than 5,000


class DatasetError(ValueError):
    """The data set cannot be used; the message is one line with what, where and how to mend it."""


def card_path(path: str | os.PathLike[str]) -> Path:
    return Path(path) / "card.json" if os.path.isdir(path) else Path(f"{os.fspath(path)}.json")


def names_path(path: str | os.PathLike[str]) -> Path:
    return Path(path) / "names" if os.path.isdir(path) else Path(f"{os.fspath(path)}.names")


def write_card(path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Writes the card of the file or folder `path`, whole or not at all, with checksums of itself and of the names."""
    described = {key: value for key, value in card.items() if key not in ("format", "version")}
    if names_path(path).is_file():
        described["names_checksum"] = hexadecimal(content(names_path(path)))
    write_json(card_path(path), sealed({"format": CARD_FORMAT, "version": CARD_VERSION, **described}))


def sealed(card: dict[str, Any]) -> dict[str, Any]:
    """The card with a checksum of what it says, in whatever order and layout, among the facts of the files."""
    card = card | {"file": {key: value for key, value in card["file"].items() if key != "card"}}
    card["file"]["card"] = hexadecimal(json.dumps(card, sort_keys=True).encode("ascii"))
    return card


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


def _no_number(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no number")


def read_card(path: Path) -> dict[str, Any]:
    """The card of the file or folder `path`.

    Raises:
        DatasetError: there is none, or it is none of ours.
    """
    card_at = card_path(path)
    try:
        with open(card_at, encoding="utf-8", opener=regular) as file:
            text = file.read(MAX_CARD + 1)
        if len(text) > MAX_CARD:
            raise ValueError(f"it has more than {MAX_CARD >> 20} MiB")
        card = json.loads(text, parse_constant=_no_number)
    except FileNotFoundError:
        where, what = ("in it", "the whole folder") if path.is_dir() else ("beside it", "both")
        raise DatasetError(
            f"{path} has no card {card_at.name} {where}; copy {what}, or convert again with: "
            f"python -m tools.convert SOURCE {path} --force"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(f"the card {card_at} cannot be read ({reason}); convert the source again") from None
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        raise DatasetError(f"{card_at} is not a card of a converted data set; convert the source again")
    if card.get("version") != CARD_VERSION:
        raise DatasetError(
            f"the card {card_at} has version {str(card.get('version'))[:20]} and this program reads {CARD_VERSION}; "
            "convert the source again"
        )
    files = card.get("file")
    if isinstance(files, dict) and "card" in files and files != sealed(card)["file"]:  # older cards have no checksum
        raise DatasetError(f"the card {card_at} was edited or damaged (its checksum differs); convert the source again")
    return card


def check_card(card: dict[str, Any]) -> None:
    """Refuses values of another kind than conversion writes, before anything is done with them.

    Raises:
        KeyError: a value is missing.
        ValueError: one is of the wrong kind; without the card's name.
    """
    classes = card["classes"]
    if type(card["number"]) is not int or not 1 <= card["number"] < 1 << 48:
        raise ValueError("number is no whole number from 1 on")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes is no list of names")
    for key in ("mean", "std"):
        values = card[key]
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3:
            raise ValueError(f"{key} is no list of three numbers")
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"{key} is outside 0 to 1")
    for key in ("checksum", "sample_checksum"):
        if not re.fullmatch("[0-9a-f]{32}", str(card.get(key, "0" * 32) if key == "sample_checksum" else card[key])):
            raise ValueError(f"{key} is no checksum")
    if not isinstance(card["source"], str):
        raise ValueError("source is no name")
    if not isinstance(card["file"], dict):
        raise ValueError("file describes no files")
    for key, value in card["file"].items():
        lengths = value if isinstance(value, list) else [] if isinstance(value, str) else [value]
        if not all(type(length) is int and 0 <= length < 1 << 62 for length in lengths):
            raise ValueError(f"file's {key} is no length")


def write_names(path: str | os.PathLike[str], names: list[str]) -> None:
    """Writes the images' source names, one a line; a line break in a name is escaped, undecodable bytes are kept."""
    lines = [name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in names]
    with open(names_path(path), "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


def read_names(path: str | os.PathLike[str], checksum: str | None = None) -> list[str]:
    """The images' names in the source, in index order; empty if the list was not kept, or is not that of the card."""
    try:
        data = content(names_path(path))
    except OSError:
        return []
    if checksum is not None and hexadecimal(data) != checksum:
        return []
    text = data.decode("utf-8", "surrogateescape")
    escapes = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    return [re.sub(r"\\[\\nr]", lambda match: escapes[match[0]], line) for line in text.split("\n")[:-1]]
