"""Open a converted data set: compare its card with its files before anything is decoded.

`open_dataset` is cheap: it reads the table, about 50 bytes an image, and 64 images. A missing, wrong, truncated or
edited file is refused in one line here, and does not crash a decoder later. `verify` reads every image. What neither
of them has seen is checked by `inspection.py` when an image is first read.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.formats.card import DatasetError, card_path, check_card, copy_advice, part_path, read_card
from pipelines.formats.channels import floored
from pipelines.formats.dataset import Dataset
from pipelines.formats.digests import SAMPLED, content_checksum, image_digest, sample_checksum, sampled_numbers
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.format import Format
from pipelines.formats.registry import FORMATS, format_of
from pipelines.printable import printable

CHECKS = ("sample", "full", "none")
_REPAIR = "convert the source again with --force, or, to train on them as they are, give --verify none"


def open_dataset(path: str | os.PathLike[str], check: str = "sample") -> Dataset:
    """Open a converted data set and compare its card with its files.

    Args:
        path: the file or folder that conversion wrote.
        check: which images are compared with the checksums: "sample", `SAMPLED` of them; "full", all; "none", for a
            data set that was changed on purpose (then the digests of single images do not count either). Lengths,
            tables and the sides of each image are compared in any case, because decoders trust them.

    Raises:
        DatasetError: it is missing, truncated or edited, or the card belongs to another data set.
        ValueError: there is no such check.
    """
    if check not in CHECKS:
        raise ValueError(f"there is no check '{check}'; take one of {', '.join(CHECKS)}")
    path = Path(path)
    form = _format(path)
    card = read_card(path)
    again = f"convert the source again with --force, or copy {copy_advice(path)}"
    try:
        check_card(card)
        dataset = _dataset(path, form, card)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from None
    except KeyError as error:
        raise DatasetError(f"the card {card_path(path)} lacks {error}; {again}") from None
    except DatasetError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        where = "" if str(path) in str(error) else f"the card {card_path(path)} is damaged or edited: "
        raise DatasetError(f"{where}{error}; {again}") from None
    if check == "none":
        return replace(dataset, table=replace(dataset.table, digest=None))
    if check == "full":
        verify(dataset)
    else:
        _verify_sample(dataset)
    return dataset


def _format(path: Path) -> Format:
    """Return the format of a complete data set.

    Raises:
        DatasetError: there is nothing at `path`, or no data set, or one part of a split conversion.
    """
    if not path.exists():
        raise DatasetError(f"there is no data set {path}; make it with: python -m tools.convert SOURCE {path}")
    form = format_of(path)
    if form is None:
        what = "a folder" if path.is_dir() else "no converted data set"
        raise DatasetError(f"{path} is {what}; convert it first: python -m tools.convert {path} OUT.beton")
    if part_path(path).is_file():
        complete = path.with_name(path.name.partition(".part-")[0])
        raise DatasetError(
            f"{path} is one part of a conversion; join all parts: python -m tools.convert --merge {complete}"
        )
    return form


def _dataset(path: Path, form: Format, card: dict[str, Any]) -> Dataset:
    """Return the data set that a checked card and its files describe.

    Raises:
        ValueError, KeyError, TypeError, OverflowError, OSError: card and files do not fit together.
    """
    table = form.checked_table(path, card["file"])
    if card["number"] != len(table):
        raise ValueError(f"{path} holds {len(table)} images and its card says {card['number']}")
    classes = tuple(printable(name) for name in card["classes"])
    if int(table.label.min()) < -1 or int(table.label.max()) >= len(classes):
        raise ValueError(f"{path} has a label beyond the {len(classes)} classes of its card")
    return Dataset(
        path=path,
        format=form.name,
        number=len(table),
        classes=classes,
        heights=table.height,
        widths=table.width,
        labels=table.label,
        mean=_triple(card["mean"]),
        std=floored(card["std"]),
        checksum=card["checksum"],
        name=printable(card["source"]),
        table=table,
        card=card,
    )


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _verify_sample(dataset: Dataset) -> None:
    """Compare `SAMPLED` images with the card; old cards have no checksum of them, and then nothing is compared."""
    expected = dataset.card.get("sample_checksum")
    if expected is None:
        return
    with EncodedImages(dataset) as images:
        digests = b"".join(image_digest(images[number].data) for number in sampled_numbers(dataset.number))
    if sample_checksum(digests) != expected:
        raise DatasetError(
            f"the images in {dataset.path} are not those of its card (checksum of {SAMPLED} of them); {_REPAIR}"
        )


def read_digests(dataset: Dataset, threads: int = 4, chunk: int = 1024) -> bytes:
    """Read all images and return their digests as the files are now, joined in index order.

    Args:
        threads: that read side by side.
        chunk: images that a thread reads in one task.
    """

    def digests(start: int) -> bytes:
        return b"".join([image_digest(images[number].data) for number in range(start, min(start + chunk, len(images)))])

    with EncodedImages(dataset) as images, ThreadPoolExecutor(threads) as pool:
        return b"".join(pool.map(digests, range(0, len(images), chunk)))


def verify(dataset: Dataset, threads: int = 4) -> None:
    """Read every image and compare the content with the card's checksum.

    Raises:
        DatasetError: the content differs, so a file was damaged.
    """
    joined = read_digests(dataset, threads)
    found = content_checksum(joined, dataset.labels)
    if found != dataset.checksum:
        damaged = _first_damaged(dataset, joined)
        raise DatasetError(
            f"the images in {dataset.path} are damaged ({damaged}content checksum {found}, card {dataset.checksum}); "
            f"{_REPAIR}"
        )


def _first_damaged(dataset: Dataset, joined: bytes) -> str:
    """Return words that name the first damaged image, where the format stores a digest of each image, else ""."""
    # Read again, because `check="none"` takes the digests out of the data set's own table.
    digest_N = FORMATS[dataset.format].checked_table(dataset.path, dataset.card["file"]).digest
    if digest_N is None:
        return ""
    wrong = np.flatnonzero(digest_N != np.frombuffer(joined, dtype=digest_N.dtype))
    if not len(wrong):
        return ""
    number = int(wrong[0])
    return f"{len(wrong)} of them, first image {number} in {dataset.table.files[dataset.table.file[number]].name}; "
