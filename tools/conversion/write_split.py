"""Write one split of a source into the staging folder: encoded in order, in the chosen format, with its companions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.decoding.image_file import MAX_PIXELS
from pipelines.formats.card import names_path, part_path, write_json, write_names
from pipelines.formats.digests import DIGEST_SIZE, content_checksum, hexadecimal
from pipelines.formats.format import Format, Sample, SampleError, Writer, WriterOptions
from pipelines.formats.registry import WRITERS
from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Item, Kept, ParquetCell
from tools.conversion.encode import KINDS, Settings
from tools.conversion.encoding_pool import encode_all
from tools.conversion.pixel_values import value_notes
from tools.conversion.shard_parts import MOMENTS, PART_FORMAT, Part, job
from tools.conversion.source import TRAIN, Source
from tools.conversion.split_statistics import describe
from tools.conversion.tree import SourceError

Progress = Callable[[int], None]  # called with the number of images that were just done


@dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        format: the on-disk format to write.
        settings: how images are stored.
        workers: number of encoding processes.
        skip_bad: whether bad files are left out; else one of them stops the conversion.
        shard_size: bytes, bound of one file in a format that has many.
        part: the part to convert of every split; None = all.
    """

    format: Format
    settings: Settings
    workers: int
    skip_bad: bool
    shard_size: int
    part: Part | None = None


@dataclass(frozen=True)
class _Content:
    """What was stored of N images, in index order.

    Attributes:
        names: of the images in the source.
        heights, widths, labels: [N].
        digests: 16 bytes an image, joined.
        moments: [N, 6], as in `encoding_pool.Chunk`.
        extremes: uint8 [M, 2] of the M images that were decoded, as there.
        stored: number of images of each of `encode.KINDS`.
        warned: (name, what an image library said), as in `encoding_pool.Chunk`.
    """

    names: list[str]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    labels: NDArray[np.int64]
    digests: bytes
    moments: NDArray[np.float64]
    extremes: NDArray[np.uint8]
    stored: dict[str, int]
    warned: list[tuple[str, str]]


def _largest(items: list[Item]) -> int:
    """Return the bytes of the largest file of a split, or a bound, as far as they are known without reading it."""
    largest = 0
    for item in items:
        place = item.content.place if isinstance(item.content, Kept) else item.content
        if isinstance(place, ByteRange):
            size = max(place.size, place.unpacked)
            if size < 0:
                with contextlib.suppress(OSError):  # reported when it is read
                    size = os.stat(place.path).st_size
            largest = max(largest, size)
        elif isinstance(place, ParquetCell):
            largest = max(largest, place.bound)
    return min(largest, 3 * MAX_PIXELS)


def convert_split(
    source: Source, suffix: str, path: Path, options: Options, bad: list[tuple[str, str]], progress: Progress
) -> dict[str, Any]:
    """Write one split and its companions, all but the card, to `path`, which does not exist yet; return the card.

    Args:
        suffix: the split's key in `source.splits`.
        bad: (name, reason) of bad files; those of this split are appended.
        progress: called with the number of images that were just done.

    Returns:
        the card; that of a part says what the merge compares, and that of a split without a good image only its number.
    """
    part, all_items = options.part, source.splits[suffix]
    # Files that were bad when the source was listed belong to no image: the first part of the first split reports them.
    reported_before = 0 if suffix == TRAIN and (part is None or part.number == 1) else len(bad)
    numbers = range(len(all_items)) if part is None else part.range(len(all_items))
    items = all_items[numbers.start : numbers.stop]
    writer_options = WriterOptions(len(items), _largest(items), options.shard_size)
    with WRITERS[options.format.name](path, writer_options) as writer:
        content = _fill(writer, items, numbers.start, options, bad, progress)
    source.warned += content.warned
    settings = {
        "max_size": options.settings.max_size,
        "quality": options.settings.quality,
        "range": _range(source, options),
        "stored": content.stored,
        "ignored": len(source.ignored),
        "skipped": [[name, reason] for name, reason in bad[reported_before:]],
    }
    if part is not None:
        return _write_part(source, suffix, path, options, part, content, settings)
    if not content.names:
        return {"number": 0}
    write_names(path, content.names)
    card = _card(source, content, settings) | {"file": options.format.file_facts(path)}
    if source.card is None:
        source.notes += value_notes(printable(path.name), card, content.extremes, options.settings.scale)
    return card


def _range(source: Source, options: Options) -> list[float] | None:
    """Return the values of the original files that became black and white, for the card; None = all of them."""
    scale = options.settings.scale or source.scale
    return None if scale is None else list(scale)


def _fill(
    writer: Writer, items: list[Item], first: int, options: Options, bad: list[tuple[str, str]], progress: Progress
) -> _Content:
    """Encode the items, the first of which is number `first` of the source, and add them in their order."""
    names: list[str] = []
    warned: list[tuple[str, str]] = []
    facts = np.zeros((len(items), 3), dtype=np.int64)
    digests: list[bytes] = []
    moments: list[NDArray[np.float64]] = [np.zeros((0, 6))]
    extremes: list[NDArray[np.uint8]] = [np.zeros((0, 2), dtype=np.uint8)]
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
            number = first + position - 1
            try:
                writer.add(Sample(image.mode, image.height, image.width, item.label, image.data, digest, number))
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
        extremes.append(chunk.extremes)
        warned += chunk.warned
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
        np.concatenate(extremes),
        stored,
        warned,
    )


def _card(source: Source, content: _Content, settings: dict[str, Any]) -> dict[str, Any]:
    if source.card is None:
        made = describe(
            source.name,
            source.kind,
            source.classes,
            content.heights,
            content.widths,
            content.labels,
            content.digests,
            content.moments,
        )
        return made | {"settings": settings}
    check_copy(source.card, content_checksum(content.digests, content.labels))
    return dict(source.card)


def check_copy(card: dict[str, Any], checksum: str) -> None:
    """Refuse images that differ from those of the converted data set that they were copied from.

    Raises:
        SourceError: the card has another checksum.
    """
    if card["checksum"] != checksum:
        raise SourceError(
            f"the images of the source are damaged (content checksum {checksum}, its card says {card['checksum']}); "
            "convert from the original"
        )


def _write_part(
    source: Source,
    suffix: str,
    path: Path,
    options: Options,
    part: Part,
    content: _Content,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Write the companions of one machine's part; return what the part says of itself."""
    write_names(path, content.names)
    with open(path / MOMENTS, "xb") as file:
        np.save(file, content.moments, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    card = {
        "part": list(part),
        "number": len(content.names),
        "labelled": int((content.labels >= 0).sum()),
        "job": job(source, suffix, options.settings, options.skip_bad),
        "settings": settings,
        "file": options.format.file_facts(path),
        "companions": {file.name: hexadecimal(file.read_bytes()) for file in (names_path(path), path / MOMENTS)},
    }
    write_json(part_path(path), {"format": PART_FORMAT, "version": 1, **card})
    return card
