"""One split of a source into the staging folder: encoded in order, written as a .beton or as shards, and described."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats import beton_format, shard_format
from pipelines.formats.beton_writer import BetonWriter, SampleError, page_size_for
from pipelines.formats.card import names_path, write_card, write_json, write_names
from pipelines.formats.digests import DIGEST_SIZE, content_checksum, hexadecimal
from pipelines.formats.shard_writer import ShardWriter
from tools.conversion.byte_locations import ByteRange, Item, Kept
from tools.conversion.encode import KINDS, MAX_PIXELS, Settings
from tools.conversion.encoding_pool import Stored, encode_all
from tools.conversion.shard_parts import MOMENTS, PART_FORMAT, Part, job, part_file
from tools.conversion.source import TRAIN, Source
from tools.conversion.split_statistics import describe
from tools.conversion.tree import SourceError

Progress = Callable[[int], None]  # told the number of images that were just done
Add = Callable[[Stored, Item, bytes, int], object]  # an encoded image, its item, digest and number in the source


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        format: "beton" or "shards".
        shard_size: bytes, bound of a shard.
        part: the part to convert of every split; None = all.
    """

    format: str
    settings: Settings
    workers: int
    skip_bad: bool
    shard_size: int
    part: Part | None = None


@dataclass(frozen=True)
class _Content:
    """What was stored, in index order: names, sides and labels, digests, moments [N, 6], and how many of each kind."""

    names: list[str]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    labels: NDArray[np.int64]
    digests: bytes
    moments: NDArray[np.float64]
    stored: dict[str, int]


def _largest(items: list[Item]) -> int:
    """Bytes of the largest file of a split, as far as it can be asked cheaply."""
    largest = 0
    for item in items:
        place = item.content.place if isinstance(item.content, Kept) else item.content
        if isinstance(place, ByteRange):
            size = max(place.size, place.unpacked)
            if size < 0:
                with contextlib.suppress(OSError):  # told when it is read
                    size = os.stat(place.path).st_size
            largest = max(largest, size)
    return min(largest, 3 * MAX_PIXELS)


def convert_split(
    source: Source, suffix: str, path: Path, options: Options, bad: list[tuple[str, str]], progress: Progress
) -> dict[str, Any]:
    """Writes one split and its companions; returns the card. Bad files are appended to `bad`."""
    part, whole = options.part, source.splits[suffix]
    # What is bad in the listing belongs to no image: the first part of the first split tells it.
    told_before = 0 if suffix == TRAIN and (part is None or part.number == 1) else len(bad)
    numbers = range(len(whole)) if part is None else part.range(len(whole))
    items = whole[numbers.start : numbers.stop]
    if options.format == "beton":
        with BetonWriter(path, len(items), page_size_for(_largest(items))) as writer:

            def add(image: Stored, item: Item, digest: bytes, number: int) -> None:
                writer.add(image.mode, image.height, image.width, item.label, image.data)

            content = _fill(add, items, 0, options, bad, progress)
        facts = beton_format.file_facts(path) if content.names else {}
    else:
        path.mkdir()
        with ShardWriter(path, len(items), options.shard_size) as shards:

            def add(image: Stored, item: Item, digest: bytes, number: int) -> None:
                shards.add(image.mode, image.height, image.width, item.label, image.data, digest, number)

            content = _fill(add, items, numbers.start, options, bad, progress)
        facts = shard_format.folder_facts(path, shards.shards)
    settings = {
        "max_size": options.settings.max_size,
        "quality": options.settings.quality,
        "stored": content.stored,
        "ignored": source.ignored,
        "skipped": [[name, reason] for name, reason in bad[told_before:]],
    }
    if part is not None:
        return _write_part(source, whole, path, options, part, content, settings, facts)
    if not content.names:
        return {"number": 0}
    write_names(path, content.names)
    card = _card(source, content, settings) | {"file": facts}
    write_card(path, card)
    return card


def _fill(
    add: Add, items: list[Item], first: int, options: Options, bad: list[tuple[str, str]], progress: Progress
) -> _Content:
    """Encodes the items, the first of which is number `first` of the source, and adds them in their order."""
    names: list[str] = []
    facts = np.zeros((len(items), 3), dtype=np.int64)
    digests: list[bytes] = []
    moments: list[NDArray[np.float64]] = [np.zeros((0, 6))]
    kinds = [0] * len(KINDS)
    position = 0
    for chunk in encode_all(items, options.settings, options.workers):
        kept: list[int] = []
        good = 0
        for image in chunk.images:
            item, position = items[position], position + 1
            if isinstance(image, str):
                bad.append((item.name, image))
                continue
            digest = chunk.digests[good * DIGEST_SIZE : (good + 1) * DIGEST_SIZE]
            try:
                add(image, item, digest, first + position - 1)
            except SampleError as error:
                bad.append((item.name, str(error)))
            else:
                facts[len(names)] = image.height, image.width, item.label
                digests.append(digest)
                names.append(item.name)
                kinds[image.kind] += 1
                kept.append(good)
            good += 1
        moments.append(chunk.moments[kept])
        progress(len(chunk.images))
    heights, widths, labels = facts[: len(names)].T
    stored = {name: kinds[kind] for kind, name in enumerate(KINDS)}
    return _Content(
        names,
        heights.astype(np.int32),
        widths.astype(np.int32),
        labels.copy(),
        b"".join(digests),
        np.concatenate(moments),
        stored,
    )


def _card(source: Source, content: _Content, settings: dict[str, Any]) -> dict[str, Any]:
    if source.card is None:
        made = describe(
            source.name, source.kind, source.classes, content.heights, content.widths, content.labels,
            content.digests, content.moments,
        )  # fmt: skip
        return made | {"settings": settings}
    check_copy(source.card, content_checksum(content.digests, content.labels))
    return dict(source.card)


def check_copy(card: dict[str, Any], checksum: str) -> None:
    """Refuses images that are not those of the converted data set that they were taken from."""
    if card["checksum"] != checksum:
        raise SourceError(
            f"the images of the source are damaged (content checksum {checksum}, its card says {card['checksum']}); "
            "convert from the original"
        )


def _write_part(
    source: Source,
    whole: list[Item],
    path: Path,
    options: Options,
    part: Part,
    content: _Content,
    settings: dict[str, Any],
    facts: dict[str, Any],
) -> dict[str, Any]:
    write_names(path, content.names)
    with open(path / MOMENTS, "xb") as file:
        np.save(file, content.moments, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    card = {
        "part": list(part),
        "number": len(content.names),
        "labelled": int((content.labels >= 0).sum()),
        "job": job(source, whole, options.settings, options.skip_bad),
        "settings": settings,
        "file": facts,
        "companions": {file.name: hexadecimal(file.read_bytes()) for file in (names_path(path), path / MOMENTS)},
    }
    write_json(part_file(path), {"format": PART_FORMAT, "version": 1, **card})
    return card
