"""What an on-disk format is: the facts and functions by which everything else opens and writes its data sets.

A format is a module `NAME_format.py` that defines a `Format`, a module `NAME_writer.py` that defines an `OpenWriter`,
and one line in `registry.py`. No other file knows which formats exist. The steps are in `pipelines/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from pipelines.formats.card import card_path, names_path, skipped_path
from pipelines.formats.image_table import JPEG, MAX_SIDE, RAW, ImageTable


@dataclass(frozen=True)
class Format:
    """One on-disk format: how to recognise, check and read its data sets.

    Attributes:
        name: what `--format` and `Dataset.format` call it.
        summary: a few words for `--help`.
        is_folder: whether a data set is a folder, which then also holds its card, or one file with the card beside it.
        suffix: the end of a file's name, such as ".beton"; "" for folders.
        splittable: whether several machines can each convert a part of a data set (`--shard`), which
            `tools/conversion/shard_merge.py` joins; it knows how to join shards only.
        recognise: whether a path is a data set of this format, complete or not. It opens regular files only and
            never raises.
        file_facts: returns the facts of the files that the card keeps: strings, lengths in bytes, and lists of
            lengths. "bytes" is the sum of all lengths. Raises ValueError or OSError where the files are unusable.
        checked_table: given the path and the card's facts of the files, compares these with the files and returns the
            table of the images. Raises ValueError with one line where they differ or a number in the table is
            impossible, KeyError where a fact is missing, and OSError where a file cannot be read.
    """

    name: str
    summary: str
    is_folder: bool
    suffix: str
    splittable: bool
    recognise: Callable[[Path], bool]
    file_facts: Callable[[Path], dict[str, Any]]
    checked_table: Callable[[Path, dict[str, Any]], ImageTable]

    def files_at(self, path: Path) -> tuple[Path, ...]:
        """Return all files and folders that a data set at `path` may consist of, in the order to move them there.

        The card is last: until it has arrived, opening refuses what lies under the name.
        """
        return (path,) if self.is_folder else (path, names_path(path), skipped_path(path), card_path(path))


class SampleError(ValueError):
    """One sample cannot be stored in this format. Nothing of it was written, and other samples can follow."""


class Sample(NamedTuple):
    """One image as it is stored.

    Attributes:
        mode: `JPEG` or `RAW`.
        height, width: pixels.
        label: number of the class, -1 = unlabelled.
        data: the encoded image, or the raw pixels, height x width x 3 bytes.
        digest: `image_digest(data)`.
        position: number of the image in the source, counted over all machines that convert it.
    """

    mode: int
    height: int
    width: int
    label: int
    data: bytes
    digest: bytes
    position: int

    def check(self, max_bytes: int) -> None:
        """Refuse a sample that no format here can describe, or that has more than `max_bytes` bytes.

        Raises:
            SampleError: the sides, the length or the mode are impossible.
        """
        sides = f"{self.width} x {self.height}"
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise SampleError(f"is {sides} pixels; each side must be 1 to {MAX_SIDE}")
        size = len(self.data)
        if self.mode not in (JPEG, RAW) or not size or (self.mode == RAW and size != self.height * self.width * 3):
            raise SampleError(f"has {size} bytes, which is no image of {sides} in mode {self.mode}")
        if size > max_bytes:
            raise SampleError(f"takes {size} bytes and at most {max_bytes} fit here; reduce it with --max-size")


@dataclass(frozen=True)
class WriterOptions:
    """What a writer may need to know before the first sample; each format takes what it needs.

    Attributes:
        capacity: the largest number of samples that will be added.
        largest_sample: bytes of the largest sample, as far as it can be told from the source.
        shard_size: bytes; the bound of one file in a format that has many.
    """

    capacity: int
    largest_sample: int
    shard_size: int


class Writer(Protocol):
    """Writes a data set's images in index order; a context manager.

    When the block ends without an error the files are complete and synced to the disk. After an error nothing is left
    that `Format.checked_table` accepts.
    """

    def add(self, sample: Sample) -> int:
        """Append a sample and return its index.

        Raises:
            SampleError: the sample cannot be stored; nothing was written.
            OSError: the disk is full or failed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


# Creates the file or folder at a path that does not exist yet.
OpenWriter = Callable[[Path, WriterOptions], Writer]
