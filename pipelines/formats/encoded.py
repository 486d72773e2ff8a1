"""Random access to the encoded bytes of a data set's images, through memory-mapped files and without copies."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.card import DatasetError
from pipelines.formats.image_table import RAW, ppm_header
from pipelines.formats.regular_file import regular

if TYPE_CHECKING:
    from pipelines.formats.dataset import Dataset

MAX_MAPPED = 256  # files; each mapped file holds a file descriptor, and 1024 is a common limit of a process


class EncodedImages:
    """`images[number]` is the stored image as uint8 [bytes], read-only; safe to use from several threads.

    A file is mapped when one of its images is first asked for. Beyond `max_mapped` files the least recently used one is
    dropped. An array stays valid for as long as it is held, also after `close`.

    Args:
        dataset: an opened data set of any format.
        max_mapped: the largest number of files that are mapped at once.

    Attributes:
        mode: [N] uint8, `JPEG` or `RAW`; raw bytes are the pixels, height x width x 3, without a file header.

    Raises:
        DatasetError: (on access) a file has disappeared or changed its length since the data set was opened.
    """

    def __init__(self, dataset: Dataset, max_mapped: int = MAX_MAPPED) -> None:
        self.mode = dataset.table.mode
        self._table = dataset.table
        self._max_mapped = max_mapped
        self._mapped: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        start = int(self._table.offset[number])
        return self.file(int(self._table.file[number]))[start : start + int(self._table.size[number])]

    def image_file(self, number: int) -> NDArray[np.uint8]:
        """Return the image as an image file [bytes]; raw pixels are copied into a PPM."""
        data = self[number]
        if self.mode[number] != RAW:
            return data
        header = ppm_header(int(self._table.height[number]), int(self._table.width[number]))
        return np.concatenate((np.frombuffer(header, dtype=np.uint8), data))

    def addresses(self, numbers_S: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
        """Return the memory addresses [S] of the images' first bytes, for compiled code.

        The mapped files come with them: hold these for as long as the addresses are used.
        """
        files, which_S = np.unique(self._table.file[numbers_S], return_inverse=True)
        mapped = [self.file(int(file)) for file in files]
        base = np.array([data.ctypes.data for data in mapped], dtype=np.int64)
        return base[which_S] + self._table.offset[numbers_S], mapped

    def file(self, number: int) -> NDArray[np.uint8]:
        """Return all bytes of file `number` of the data set, mapped."""
        with self._lock:
            data = self._mapped.get(number)
            if data is None:
                data = self._mapped[number] = self._map(number)
                if len(self._mapped) > self._max_mapped:
                    self._mapped.popitem(last=False)
            else:
                self._mapped.move_to_end(number)
            return data

    def _map(self, number: int) -> NDArray[np.uint8]:
        path, length = self._table.files[number], self._table.lengths[number]
        try:
            with open(path, "rb", opener=regular) as file:
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise DatasetError(f"{path} cannot be read any more ({error}); open the data set again") from None
        if len(data) != length:  # reading mapped memory beyond the end would kill the process
            raise DatasetError(f"{path} has {len(data)} bytes now and had {length}; open the data set again")
        return data

    def close(self) -> None:
        """Drop all files; each is unmapped when the last array that lies in it is released."""
        with self._lock:
            self._mapped.clear()

    def __enter__(self) -> EncodedImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
