"""Write shards in one pass, sample by sample: tars of a bounded size, and their index.

The files appear under their own names while they are written. The caller gives the folder its name when it is
complete; see `tools/staging.py`.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from pipelines.formats.format import Sample, WriterOptions
from pipelines.formats.image_table import RAW, ppm_header
from pipelines.formats.shard_format import BLOCK, INDEX, RECORD, index_bytes, shard_name
from pipelines.formats.sync import sync_folder

SHARD_SIZE = 512 << 20  # bytes, as a default
MAX_BYTES = (1 << 32) - 1  # bytes of one image: 32 bits in the index
_END = bytes(2 * BLOCK)  # ends a tar
_BUFFER = 1 << 20  # bytes


def _template() -> bytes:
    """Return a tar header without name and length; owner, time and mode are always the same."""
    member = tarfile.TarInfo("")
    member.mode = 0o644
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    header[124:135] = bytes(11)
    header[148:156] = b" " * 8  # the checksum counts itself as blanks
    return bytes(header)


_HEADER = _template()
_SUM = sum(_HEADER)


def tar_header(name: bytes, size: int) -> bytes:
    """Return the POSIX header of a file of `size` bytes: the bytes that `tarfile` makes, computed faster."""
    length = b"%011o" % size
    checksum = b"%06o\0 " % (_SUM + sum(name) + sum(length))
    return name.ljust(100, b"\0") + _HEADER[100:124] + length + _HEADER[135:148] + checksum + _HEADER[156:]


def open_writer(path: Path, options: WriterOptions) -> ShardWriter:
    """Make the folder `path` and return a writer that fills it."""
    path.mkdir()
    return ShardWriter(path, options.capacity, options.shard_size)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


class ShardWriter:
    """Fills a folder with shards and, when the block ends without an error, with their index.

        with ShardWriter(folder, capacity=1000) as writer:
            writer.add(Sample(JPEG, height, width, label, data, digest, position))

    A sample's position becomes its key in the tar, so that the parts of a split conversion join without a change.
    Memory: 44 bytes a sample.

    Args:
        folder: an empty folder that exists.
        capacity: the largest number of samples.
        shard_size: bytes; a shard is closed before it would grow larger, so only a single image that is larger than
            this makes a larger shard.
    """

    def __init__(self, folder: str | os.PathLike[str], capacity: int, shard_size: int = SHARD_SIZE) -> None:
        self.folder = Path(folder)
        self.shard_size = shard_size
        self.number = 0
        self.shards = 0
        self._records = np.zeros(capacity, dtype=RECORD)
        self._file: BinaryIO | None = None
        self._length = 0

    def add(self, sample: Sample) -> int:
        """Append a sample and return its index.

        Raises:
            SampleError: the sample cannot be stored; nothing was written.
            OSError: the disk is full or failed.
        """
        sample.check(max_bytes=MAX_BYTES)
        mode, height, width, label, data, digest, position = sample
        key = b"%09d" % position
        front = ppm_header(height, width) if mode == RAW else b""
        size = len(front) + len(data)
        pieces = [tar_header(key + (b".ppm" if mode == RAW else b".jpg"), size), front, data, _padding(size)]
        if label >= 0:
            text = b"%d" % label
            pieces += [tar_header(key + b".cls", len(text)), text, _padding(len(text))]
        length = sum(map(len, pieces))
        if self._file is not None and self._length + length + len(_END) > self.shard_size:
            self._close_shard()
        if self._file is None:
            path = self.folder / shard_name(self.shards)
            self._file = open(path, "xb", buffering=_BUFFER)  # noqa: SIM115 - closed in _close_shard
            self._length, self.shards = 0, self.shards + 1
        self._file.write(b"".join(pieces))
        index, offset = self.number, self._length + BLOCK + len(front)
        self._records[index] = (offset, len(data), self.shards - 1, width, height, label, mode, digest)
        self._length += length
        self.number += 1
        return index

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file.write(_END)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _finish(self) -> None:
        self._close_shard()
        with open(self.folder / INDEX, "xb") as file:
            file.write(index_bytes(self._records[: self.number], self.shards))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.folder)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            if self._file is not None:
                self._file.close()
