"""From a recognised source to finished files: all splits are written, or none is."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.beton_format import file_facts, read_table
from pipelines.beton_writer import BetonWriter, SampleError, page_size_for, sync_folder
from pipelines.card import card_path, names_path, write_card, write_names
from pipelines.digests import DIGEST_SIZE, content_checksum
from pipelines.image_table import ImageTable
from tools.encode import KINDS, MAX_PIXELS, Settings
from tools.places import Item, Place
from tools.source import TRAIN, Source
from tools.trees import shown
from tools.workers import encode_all

Progress = Callable[[int], None]  # told the number of images that were just done


class TargetError(ValueError):
    """The target cannot be written; one line."""


class BadFiles(ValueError):
    """Files that cannot be converted, as (name, reason)."""

    def __init__(self, bad: list[tuple[str, str]]) -> None:
        super().__init__(f"{len(bad)} files cannot be converted")
        self.bad = bad


@dataclass(frozen=True)
class Written:
    """A finished split: its file, and the card that lies beside it."""

    path: Path
    card: dict[str, Any]


def target(out: Path, suffix: str) -> Path:
    """photos.beton, and for the split "test" photos-test.beton."""
    return out if suffix == TRAIN else out.with_name(f"{out.stem}-{suffix}{out.suffix}")


def skipped_path(path: Path) -> Path:
    return Path(f"{path}.skipped.txt")


def check_targets(out: Path, suffixes: list[str], force: bool) -> None:
    """Refuses, before any work, what must not be replaced.

    Raises:
        TargetError: a file is in the way, by name.
    """
    for suffix in suffixes:
        path = target(out, suffix)
        if path.is_dir():
            raise TargetError(f"the target {shown(str(path))} is a folder; give a file name, such as photos.beton")
        for existing in (path, card_path(path), names_path(path)):
            if existing.exists() and not force:
                raise TargetError(
                    f"the target {shown(str(existing))} exists; give another name, or --force to replace it"
                )


def convert(
    source: Source, out: Path, staging: Path, settings: Settings, workers: int, skip_bad: bool, progress: Progress
) -> list[Written]:
    """Converts every split into the folder `staging` and moves the finished files to their places.

    Raises:
        BadFiles: some files are bad and `skip_bad` is not set, or none is good. Nothing was written.
        OSError, WorkerError: nothing was written.
    """
    bad = list(source.bad)
    done: list[Written] = []
    for suffix, items in source.splits.items():
        path = target(out, suffix)
        card = _convert_split(source, suffix, items, staging / path.name, settings, workers, bad, progress)
        done.append(Written(path, card))
    if bad and (not skip_bad or any(written.card["number"] == 0 for written in done)):
        raise BadFiles(bad)
    if bad:
        lines = "".join(f"{shown(name)}: {shown(reason)}\n" for name, reason in bad)
        skipped_path(staging / out.name).write_text(lines, encoding="utf-8")
    for written in done:
        skipped_path(written.path).unlink(missing_ok=True)  # of an earlier conversion
    # The card moves last: until it is there, what lies under the name is told to be another file.
    for written in done:
        for name in (written.path, names_path(written.path), skipped_path(written.path), card_path(written.path)):
            with contextlib.suppress(FileNotFoundError):
                os.replace(staging / name.name, name)
    sync_folder(out.parent)
    return done


def clean_up(staging: Path) -> None:
    """Removes what is left of a conversion."""
    shutil.rmtree(staging, ignore_errors=True)


def _largest(items: list[Item]) -> int:
    """Bytes of the largest file of a split, as far as it can be asked cheaply."""
    largest = 0
    for item in items:
        if isinstance(item.content, Place):
            size = max(item.content.size, item.content.unpacked)
            if size < 0:
                with contextlib.suppress(OSError):  # told when it is read
                    size = os.stat(item.content.path).st_size
            largest = max(largest, size)
    return min(largest, 3 * MAX_PIXELS)


def _convert_split(
    source: Source,
    suffix: str,
    items: list[Item],
    path: Path,
    settings: Settings,
    workers: int,
    bad: list[tuple[str, str]],
    progress: Progress,
) -> dict[str, Any]:
    """Writes one split and its companions; returns the card. Bad files are appended to `bad`."""
    skipped_before = len(bad) if suffix != TRAIN else 0
    names: list[str] = []
    digests: list[bytes] = []
    moments: list[NDArray[np.float64]] = []
    kinds = [0] * len(KINDS)
    position = 0
    with BetonWriter(path, len(items), page_size_for(_largest(items))) as writer:
        for chunk in encode_all(items, settings, workers):
            kept: list[int] = []
            good = 0
            for item, image in zip(items[position : position + len(chunk.images)], chunk.images, strict=True):
                if isinstance(image, str):
                    bad.append((item.name, image))
                    continue
                try:
                    writer.add(image.mode, image.height, image.width, item.label, image.data)
                except SampleError as error:
                    bad.append((item.name, str(error)))
                else:
                    kept.append(good)
                    names.append(item.name)
                    kinds[image.kind] += 1
                good += 1
            all_digests = np.frombuffer(chunk.digests, dtype=np.uint8).reshape(good, DIGEST_SIZE)
            digests.append(all_digests[kept].tobytes())
            moments.append(chunk.moments[kept])
            position += len(chunk.images)
            progress(len(chunk.images))
        number = writer.number
    if number == 0:
        return {"number": 0}
    write_names(path, names)
    card = _card(source, read_table(path), b"".join(digests), np.concatenate(moments))
    stored = {name: kinds[kind] for kind, name in enumerate(KINDS)}
    card["settings"] = {
        "max_size": settings.max_size,
        "quality": settings.quality,
        "stored": stored,
        "ignored": source.ignored,
        "skipped": [[name, reason] for name, reason in bad[skipped_before:]],
    }
    card["file"] = file_facts(path)
    write_card(path, card)
    return card


def _card(source: Source, table: ImageTable, digests: bytes, moments: NDArray[np.float64]) -> dict[str, Any]:
    """What is known of a split. Mean and deviation weigh every image alike, as crops of one size will."""
    mean = moments[:, :3].mean(axis=0)
    std = np.sqrt(np.maximum(moments[:, 3:].mean(axis=0) - mean * mean, 0))
    counts = np.bincount(table.label[table.label >= 0], minlength=len(source.classes))
    try:
        created_by = f"likeness {version('likeness')}"
    except PackageNotFoundError:  # run from a checkout
        created_by = "likeness"
    return {
        "number": len(table),
        "classes": list(source.classes),
        "class_counts": counts.tolist(),
        "labelled": int(counts.sum()),
        "height": _spread(table.height),
        "width": _spread(table.width),
        "mean": [round(float(value), 8) for value in mean],
        "std": [round(float(value), 8) for value in std],
        "checksum": content_checksum(digests, table.label),
        "source": source.name,
        "layout": source.kind,
        "created_by": created_by,
    }


def _spread(sides: NDArray[np.int32]) -> dict[str, float]:
    return {"min": int(sides.min()), "median": float(np.median(sides)), "max": int(sides.max())}
