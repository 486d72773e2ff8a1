"""The small files that belong to a data set: the card that describes it, and the names of its images in the source.

They lie beside a data set that is one file, and inside one that is a folder:

    photos.beton     photos.beton.json         photos.beton.names     photos.beton.skipped.txt
    photos-shards/   photos-shards/card.json   photos-shards/names    photos-shards/skipped.txt
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from pipelines.decoding.value_range import ValueRange, value_range
from pipelines.formats.digests import hexadecimal
from pipelines.formats.regular_file import content, regular

CARD_FORMAT = "likeness-card"
CARD_VERSION = 1
MAX_CARD = 256 << 20  # characters; each skipped file that the card lists takes less than 5,000
PART = "part.json"


class DatasetError(ValueError):
    """The data set cannot be used; the message is one line that says what is wrong, where, and how to fix it."""


def card_path(path: str | os.PathLike[str]) -> Path:
    """Return where the card of the data set at `path` lies."""
    return _companion(path, "card.json", ".json")


def names_path(path: str | os.PathLike[str]) -> Path:
    """Return where the names of the images of the data set at `path` lie."""
    return _companion(path, "names", ".names")


def skipped_path(path: str | os.PathLike[str]) -> Path:
    """Return where conversion lists the source files that it skipped."""
    return _companion(path, "skipped.txt", ".skipped.txt")


def part_path(folder: Path) -> Path:
    """Return the file that one machine's part of a split conversion has in place of the card."""
    return folder / PART


def _companion(path: str | os.PathLike[str], inside: str, suffix: str) -> Path:
    return Path(path) / inside if os.path.isdir(path) else Path(f"{os.fspath(path)}{suffix}")


def copy_advice(path: Path) -> str:
    """Return what has to be copied so that a data set stays complete, in words for a message."""
    return "the folder with all its files" if path.is_dir() else f"{path.name} and {card_path(path).name} together"


def write_card(path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Write the card of the data set at `path`, atomically, with a checksum of itself and one of the names."""
    described = {key: value for key, value in card.items() if key not in ("format", "version")}
    if names_path(path).is_file():
        described["names_checksum"] = hexadecimal(content(names_path(path)))
    write_json(card_path(path), sealed({"format": CARD_FORMAT, "version": CARD_VERSION, **described}))


def sealed(card: dict[str, Any]) -> dict[str, Any]:
    """Return the card with a checksum of its values under `file.card`; key order and white space do not count."""
    card = card | {"file": {key: value for key, value in card["file"].items() if key != "card"}}
    card["file"]["card"] = hexadecimal(json.dumps(card, sort_keys=True).encode("ascii"))
    return card


def write_json(target: Path, value: dict[str, Any]) -> None:
    """Write a small JSON file atomically: it appears complete and synced, or not at all."""
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


def _not_a_number(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no number")


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of the data set at `path`; its values are not checked yet.

    Raises:
        DatasetError: there is no card, or it is damaged, or it was not written by this project.
    """
    card_at = card_path(path)
    try:
        with open(card_at, encoding="utf-8", opener=regular) as file:
            text = file.read(MAX_CARD + 1)
        if len(text) > MAX_CARD:
            raise ValueError(f"it has more than {MAX_CARD >> 20} MiB")
        card = json.loads(text, parse_constant=_not_a_number)
    except FileNotFoundError:
        raise DatasetError(
            f"{path} has no card {card_at.name}; copy {copy_advice(path)}, or convert again with: "
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
    """Refuse a card with a value of a kind that conversion does not write.

    Raises:
        KeyError: a value is missing.
        ValueError: a value is of the wrong kind; the message does not name the card.
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
    card_range(card)
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


def card_range(card: dict[str, Any]) -> ValueRange | None:
    """Return the values of the original files that became black and white; None = all that their kind of pixels has.

    Raises:
        ValueError: it is no range.
    """
    settings = card.get("settings")
    found = settings.get("range") if isinstance(settings, dict) else None
    return None if found is None else value_range(found)


def write_names(path: str | os.PathLike[str], names: list[str]) -> None:
    """Write the images' names in the source, one a line; line breaks are escaped, undecodable bytes are kept."""
    lines = [name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in names]
    with open(names_path(path), "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


def read_names(path: str | os.PathLike[str], checksum: str | None = None) -> list[str]:
    """Return the images' names in the source, in index order.

    Args:
        checksum: the card's checksum of the list; None = do not compare.

    Returns:
        an empty list if there is no list, or if its checksum differs.
    """
    try:
        data = content(names_path(path))
    except OSError:
        return []
    if checksum is not None and hexadecimal(data) != checksum:
        return []
    text = data.decode("utf-8", "surrogateescape")
    escapes = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    return [re.sub(r"\\[\\nr]", lambda match: escapes[match[0]], line) for line in text.split("\n")[:-1]]
