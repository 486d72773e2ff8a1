"""Opens a converted data set: its card is compared with its files before anything is decoded.

`open_dataset` is cheap (about 50 bytes read for each image, and 64 images) and compares the card with the files, so
that a missing, wrong, cut or edited one is told in one line and not by a crash in a decoder. `verify` also reads every
image. What neither has seen, `inspection.py` looks at when an image is read for the first time.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.formats import beton_format, shard_format
from pipelines.formats.card import DatasetError, card_path, check_card, read_card
from pipelines.formats.dataset import Dataset
from pipelines.formats.digests import SAMPLED, content_checksum, image_digest, sample_checksum, sampled_numbers
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import ImageTable
from pipelines.printable import printable

CHECKS = ("sample", "full", "none")
MEND = "convert the source again with --force, or, to train on them as they are, give --verify none"


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def open_dataset(path: str | os.PathLike[str], check: str = "sample") -> Dataset:
    """Opens a converted data set and compares its card with the files.

    Args:
        check: how much of the images is compared with the checksums: "sample", `SAMPLED` of them; "full", all; "none",
            for a set that was changed on purpose: then the digests of single images do not count either. Lengths,
            tables and the sides of each image are compared in any case, as a decoder trusts them.

    Raises:
        DatasetError: missing, cut, edited, or with another data set's card.
    """
    if check not in CHECKS:
        raise ValueError(f"there is no check '{check}'; take one of {', '.join(CHECKS)}")
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"there is no data set {path}; make it with: python -m tools.convert SOURCE {path}")
    if path.is_dir() and not shard_format.is_shard_folder(path):
        raise DatasetError(f"{path} is a folder; convert it first: python -m tools.convert {path} OUT.beton")
    if (path / shard_format.PART).is_file():
        whole = path.with_name(path.name.partition(".part-")[0])
        raise DatasetError(f"{path} is one part of a conversion; join all: python -m tools.convert --merge {whole}")
    card = read_card(path)
    together = "the whole folder" if path.is_dir() else "the .beton and its .json together"
    again = f"convert the source again with --force, or copy {together}"
    try:
        module = shard_format if path.is_dir() else beton_format
        check_card(card)
        table: ImageTable = module.checked_table(path, card["file"])
        if check == "none":
            table = replace(table, digest=None)
        if card["number"] != len(table):
            raise ValueError(f"{path} holds {len(table)} images and its card says {card['number']}")
        classes = tuple(printable(name) for name in card["classes"])
        if int(table.label.min()) < -1 or int(table.label.max()) >= len(classes):
            raise ValueError(f"{path} has a label beyond the {len(classes)} classes of its card")
        dataset = Dataset(
            path=path,
            format="shards" if path.is_dir() else "beton",
            number=len(table),
            classes=classes,
            heights=table.height,
            widths=table.width,
            labels=table.label,
            mean=_triple(card["mean"]),
            std=_triple(card["std"]),
            checksum=card["checksum"],
            name=printable(card["source"]),
            table=table,
            card=card,
        )
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from None
    except KeyError as error:
        raise DatasetError(f"the card {card_path(path)} lacks {error}; {again}") from None
    except DatasetError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        where = "" if str(path) in str(error) else f"the card {card_path(path)} is damaged or edited: "
        raise DatasetError(f"{where}{error}; {again}") from None
    if check == "full":
        verify(dataset)
    elif check == "sample":
        _verify_sample(dataset)
    return dataset


def _verify_sample(dataset: Dataset) -> None:
    """Compares a few images with the card; nothing where it was written before cards had such a checksum."""
    expected = dataset.card.get("sample_checksum")
    if expected is None:
        return
    with EncodedImages(dataset) as images:
        digests = b"".join(image_digest(images[number].data) for number in sampled_numbers(dataset.number))
    if sample_checksum(digests) != expected:
        raise DatasetError(
            f"the images in {dataset.path} are not those of its card (checksum of {SAMPLED} of them); {MEND}"
        )


def read_digests(dataset: Dataset, threads: int = 4, chunk: int = 1024) -> bytes:
    """The digests of the images as they are now, joined in index order; reads all of them."""

    def digests(start: int) -> bytes:
        return b"".join([image_digest(images[number].data) for number in range(start, min(start + chunk, len(images)))])

    with EncodedImages(dataset) as images, ThreadPoolExecutor(threads) as pool:
        return b"".join(pool.map(digests, range(0, len(images), chunk)))


def verify(dataset: Dataset, threads: int = 4) -> None:
    """Reads every image and compares the content with the card's checksum.

    Raises:
        DatasetError: the content differs, so a file was damaged.
    """
    joined = read_digests(dataset, threads)
    found = content_checksum(joined, dataset.labels)
    if found != dataset.checksum:
        culprit = _first_damaged(dataset, joined)
        raise DatasetError(
            f"the images in {dataset.path} are damaged ({culprit}content checksum {found}, card {dataset.checksum}); "
            f"{MEND}"
        )


def _first_damaged(dataset: Dataset, joined: bytes) -> str:
    """Names the first image that is not what the index of shards says; a .beton keeps no checksum of each image."""
    if dataset.format != "shards":
        return ""
    records, _ = shard_format.read_index(dataset.path / shard_format.INDEX)
    wrong = np.flatnonzero(records["digest"] != np.frombuffer(joined, dtype=records["digest"].dtype))
    if not len(wrong):
        return ""
    number = int(wrong[0])
    return f"{len(wrong)} of them, first image {number} in {dataset.table.files[dataset.table.file[number]].name}; "
