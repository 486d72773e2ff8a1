"""Write a .beton in one pass, sample by sample. It appears complete and synced under its name, or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np

from pipelines.formats.beton_format import ALLOCATION, FIELD, HEADER, IMAGE_FIELD, INT_FIELD, VERSION, metadata_dtype
from pipelines.formats.format import Sample, WriterOptions
from pipelines.formats.sync import sync_folder

PAGE_SIZE = 8 << 20  # bytes; FFCV's default
MAX_PAGE_SIZE = 1 << 31  # bytes; the largest power of two that the header's 32 bits hold


def page_size_for(largest: int) -> int:
    """Return the page size, in bytes, for a file whose largest sample takes `largest` bytes."""
    page = PAGE_SIZE
    while page < largest and page < MAX_PAGE_SIZE:
        page *= 2
    return page


def open_writer(path: Path, options: WriterOptions) -> BetonWriter:
    """Return a writer of the file `path`, with pages that hold its largest sample."""
    return BetonWriter(path, options.capacity, page_size_for(options.largest_sample))


class BetonWriter:
    """Writes a file with the fields `image` and `label`.

        with BetonWriter(path, capacity=1000) as writer:
            writer.add(Sample(JPEG, height, width, label, data, digest, position))

    Until the block ends without an error there is only a temporary file beside `path`; after an error there is none.
    Digests and positions are not stored. Memory: one page, and 48 bytes a sample.

    Args:
        path: the file to write; replaced if it exists.
        capacity: the largest number of samples; their metadata is stored before the data, so its size must be known.
        page_size: bytes, a power of two, at least as large as the largest sample.
    """

    def __init__(self, path: str | os.PathLike[str], capacity: int, page_size: int = PAGE_SIZE) -> None:
        if not 1 << 12 <= page_size <= MAX_PAGE_SIZE or page_size & (page_size - 1):
            raise ValueError(f"page size is {page_size}; give a power of two from 4096 to {MAX_PAGE_SIZE}")
        self.path = Path(path)
        self.capacity = capacity
        self.page_size = page_size
        self.number = 0
        self._metadata = np.zeros(capacity, dtype=metadata_dtype([IMAGE_FIELD, INT_FIELD]))
        self._allocations = np.zeros(capacity, dtype=ALLOCATION)
        self._metadata_start = HEADER.itemsize + 2 * FIELD.itemsize
        data_start = self._metadata_start + self._metadata.nbytes
        self._page_start = -(-data_start // page_size) * page_size
        self._page = bytearray()
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._file = open(self._temporary, "wb", buffering=0)  # noqa: SIM115 - closed in __exit__

    def add(self, sample: Sample) -> int:
        """Append a sample and return its index.

        Raises:
            SampleError: the sample cannot be stored; nothing was written.
            OSError: the disk is full or failed.
        """
        if self.number >= self.capacity:
            raise ValueError(f"{self.path} was made for at most {self.capacity} samples")
        sample.check(max_bytes=self.page_size)
        data = sample.data
        if len(self._page) + len(data) > self.page_size:
            self._page.extend(bytes(self.page_size - len(self._page)))
            self._flush()
        pointer = self._page_start + len(self._page)
        self._page += data
        index = self.number
        self._metadata[index] = ((sample.mode, sample.width, sample.height, pointer), sample.label)
        self._allocations[index] = (index, pointer, len(data))
        self.number += 1
        return index

    def _flush(self) -> None:
        self._write(self._page, self._page_start)
        self._page_start += len(self._page)
        self._page.clear()

    def _write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        with memoryview(data) as view:
            done = 0
            while done < len(view):  # an unbuffered write may take less than all of it
                done += os.pwrite(self._file.fileno(), view[done:], offset + done)

    def _finish(self) -> None:
        self._flush()
        header = np.zeros(1, dtype=HEADER)
        header[0] = (VERSION, 2, self.page_size, self.number, self._page_start)
        fields = np.zeros(2, dtype=FIELD)
        for field, (type_id, name) in zip(fields, ((IMAGE_FIELD, b"image"), (INT_FIELD, b"label")), strict=True):
            field["type_id"] = type_id
            field["name"][: len(name)] = np.frombuffer(name, dtype=np.uint8)
        # FFCV reads the table up to the end of the file, so it must come last there. The header is written last: every
        # reader refuses a file without one.
        self._write(self._allocations[: self.number].tobytes(), self._page_start)
        self._write(fields.tobytes(), HEADER.itemsize)
        self._write(self._metadata[: self.number].tobytes(), self._metadata_start)
        self._write(header.tobytes(), 0)
        os.fsync(self._file.fileno())

    def __enter__(self) -> BetonWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if error is None:
                    self._finish()
            finally:
                self._file.close()
            if error is None:
                os.replace(self._temporary, self.path)
                sync_folder(self.path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)
