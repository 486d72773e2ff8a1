"""A converted data set: the file, and the small card that was written beside it.

`photos.beton` has two companions:

    photos.beton.json    the card: number, classes, sizes, channel mean and deviation, checksums, source, settings
    photos.beton.names   the images' names in the source, one a line in index order, for messages (`image_names`)

`open_dataset` is cheap (about 50 bytes read for each image) and compares the card with the file, so that a wrong, cut
or edited file is told in one line and not by a crash in a decoder. `verify` also reads every image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.beton_format import BetonTable, read_table, structure_bytes

CARD_FORMAT = "likeness-card"
CARD_VERSION = 1
DIGEST_SIZE = 16  # bytes of blake2b


class DatasetError(ValueError):
    """The data set cannot be used; the message is one line with what, where and how to mend it."""


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set without decoding it.

    Attributes:
        path: the file with the images.
        format: "beton".
        number: N, the images in it.
        classes: names, in the order of the labels; empty if unlabelled.
        heights, widths: [N] int32, pixels.
        labels: [N] int64, -1 = unlabelled.
        mean, std: of red, green and blue on the scale 0 to 1; every image counts the same whatever its size.
        checksum: hexadecimal; of the images' encoded bytes and labels in order, whatever file they lie in.
        name: the source that it was converted from.
        table: where the images lie in the file.
        card: the whole card.
    """

    path: Path
    format: str
    number: int
    classes: tuple[str, ...]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    labels: NDArray[np.int64]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    checksum: str
    name: str
    table: BetonTable
    card: dict[str, Any]


def card_path(path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(path)}.json")


def names_path(path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(path)}.names")


def image_digest(data: bytes) -> bytes:
    """16 bytes that stand for an image's encoded bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def content_checksum(digests: bytes, labels: NDArray[np.int64]) -> str:
    """Checksum of a data set from its images' digests, joined in index order, and its labels [N]."""
    rows = np.zeros(len(labels), dtype=[("digest", "u1", DIGEST_SIZE), ("label", "<i8")])
    rows["digest"] = np.frombuffer(digests, dtype=np.uint8).reshape(len(labels), DIGEST_SIZE)
    rows["label"] = labels
    return hashlib.blake2b(rows.tobytes(), digest_size=DIGEST_SIZE).hexdigest()


def file_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the card keeps of the file itself: its length and a checksum of all that is not image data."""
    length, structure = structure_bytes(path)
    return {"bytes": length, "checksum": hashlib.blake2b(structure, digest_size=DIGEST_SIZE).hexdigest()}


def write_card(path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Writes the card of the file `path`, whole or not at all."""
    target = card_path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="ascii") as file:  # other characters, and undecodable names, are escaped
            json.dump({"format": CARD_FORMAT, "version": CARD_VERSION, **card}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _read_card(path: Path) -> dict[str, Any]:
    card_at = card_path(path)
    try:
        card = json.loads(card_at.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(
            f"{path} has no card {card_at.name} beside it; copy both, or convert again with: "
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


def _triple(card: dict[str, Any], key: str) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in card[key])
    if not all(np.isfinite((red, green, blue))) or min(red, green, blue) < 0 or max(red, green, blue) > 1:
        raise ValueError(f"{key} is {card[key]}, outside 0 to 1")
    return red, green, blue


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Opens a converted data set and compares its card with the file.

    Raises:
        DatasetError: missing, cut, edited, or with another file's card.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"there is no data set {path}; make it with: python -m tools.convert SOURCE {path}")
    if path.is_dir():
        raise DatasetError(f"{path} is a folder; convert it first: python -m tools.convert {path} OUT.beton")
    card = _read_card(path)
    again = "convert the source again with --force, or copy the .beton and its .json together"
    try:
        recorded = card["file"]
        length = path.stat().st_size
        if recorded["bytes"] != length:
            what = "cut short or still being copied" if length < recorded["bytes"] else "another file"
            raise DatasetError(f"{path} has {length} bytes and its card says {recorded['bytes']} ({what}); {again}")
        table = read_table(path)
        if card["number"] != len(table):
            raise DatasetError(f"{path} holds {len(table)} images and its card says {card['number']}; {again}")
        if file_facts(path)["checksum"] != recorded["checksum"]:
            raise DatasetError(f"{path} is not the file that its card describes (checksums differ); {again}")
        classes = tuple(str(name) for name in card["classes"])
        if int(table.label.min()) < -1 or int(table.label.max()) >= len(classes):
            raise DatasetError(f"{path} has a label beyond the {len(classes)} classes of its card; {again}")
        mean, std = _triple(card, "mean"), _triple(card, "std")
        checksum, name = str(card["checksum"]), str(card["source"])
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from None
    except KeyError as error:
        raise DatasetError(f"the card {card_path(path)} lacks {error}; {again}") from None
    except DatasetError:
        raise
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{error}; {again}") from None
    return Dataset(
        path=path,
        format="beton",
        number=len(table),
        classes=classes,
        heights=table.height,
        widths=table.width,
        labels=table.label,
        mean=mean,
        std=std,
        checksum=checksum,
        name=name,
        table=table,
        card=card,
    )


def verify(dataset: Dataset, threads: int = 4, chunk: int = 1024) -> None:
    """Reads every image and compares the content with the card's checksum.

    Raises:
        DatasetError: the content differs, so the file was damaged.
    """
    table = dataset.table

    def digests(start: int) -> bytes:
        stop = min(start + chunk, len(table))
        places = zip(table.size[start:stop].tolist(), table.offset[start:stop].tolist(), strict=True)
        return b"".join([image_digest(os.pread(handle, size, offset)) for size, offset in places])

    with open(dataset.path, "rb") as file, ThreadPoolExecutor(threads) as pool:
        handle = file.fileno()
        found = content_checksum(b"".join(pool.map(digests, range(0, len(table), chunk))), table.label)
    if found != dataset.checksum:
        raise DatasetError(
            f"the images in {dataset.path} are damaged (content checksum {found}, card {dataset.checksum}); "
            "convert the source again with --force"
        )


def write_names(path: str | os.PathLike[str], names: list[str]) -> None:
    """Writes the images' source names, one a line; a line break in a name is escaped, undecodable bytes are kept."""
    lines = [name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in names]
    with open(names_path(path), "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


def image_names(dataset: Dataset) -> list[str]:
    """The images' names in the source, in index order; empty if the list was not kept beside the file."""
    try:
        text = names_path(dataset.path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    escapes = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    names = [re.sub(r"\\[\\nr]", lambda match: escapes[match[0]], line) for line in text.split("\n")[:-1]]
    return names if len(names) == dataset.number else []
