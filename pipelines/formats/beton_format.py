"""FFCV's file format (version 2), read and written without FFCV.

    header | field descriptors | metadata[capacity] | ... | page | page | ... | allocation table

A page holds whole samples only, starts at a multiple of the page size, and is what FFCV reads at once. The allocation
table lists (sample, offset, size) in any order, so an image's size is found through its offset. Writing is in
`beton_writer.py`; this file has the layout and the reader.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.digests import hexadecimal
from pipelines.formats.image_table import ImageTable, check_pixels, refuse
from pipelines.formats.regular_file import regular

VERSION = 2
INT_FIELD, IMAGE_FIELD = 1, 2

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
POINTED = np.dtype([("ptr", "<u8"), ("size", "<u8")])
# What one sample's metadata holds for each of FFCV's field types: float, int, image, bytes, array, JSON, tensor.
FIELD_METADATA: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f8"),
    INT_FIELD: np.dtype("<i8"),
    IMAGE_FIELD: IMAGE,
    3: POINTED,
    4: np.dtype("<u8"),
    5: POINTED,
    6: np.dtype("<u8"),
}


def metadata_dtype(type_ids: list[int]) -> np.dtype[Any]:
    """One sample's metadata, as FFCV builds it: aligned, with unnamed fields f0, f1, ..."""
    return np.dtype([("", FIELD_METADATA[type_id]) for type_id in type_ids], align=True)


def _records(file: BinaryIO, dtype: np.dtype[Any], count: int, offset: int, length: int, what: str) -> NDArray[Any]:
    """`count` records at `offset`; refuses, before allocating, what the file of `length` bytes cannot hold."""
    if offset + count * dtype.itemsize > length:
        raise ValueError(f"is cut short or edited: its {what} ends beyond its {length} bytes")
    file.seek(offset)
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"is cut short: its {what} cannot be read")
    return np.frombuffer(data, dtype=dtype)


def _read(path: Path, file: BinaryIO) -> ImageTable:
    length = os.fstat(file.fileno()).st_size
    header = _records(file, HEADER, 1, 0, length, "header")[0]
    if header["version"] != VERSION:
        raise ValueError(f"is no .beton of version {VERSION} (it says {header['version']})")
    page, number, fields = int(header["page_size"]), int(header["num_samples"]), int(header["num_fields"])
    if page == 0 or page & (page - 1):
        raise ValueError(f"is no .beton or was edited: its page size is {page}, not a power of two")
    if number == 0:
        raise ValueError("holds no samples or was never finished")
    descriptors = _records(file, FIELD, fields, HEADER.itemsize, length, "list of fields")
    types = [int(type_id) for type_id in descriptors["type_id"]]
    names = [bytes(name).split(b"\0")[0].decode("latin-1") for name in descriptors["name"]]
    unknown = [name for name, type_id in zip(names, types, strict=True) if type_id not in FIELD_METADATA]
    if unknown:
        raise ValueError(f"has a field {unknown[0]!r} of a type that is not FFCV's own")
    if IMAGE_FIELD not in types:
        raise ValueError("has no image field")
    image_at = names.index("image") if "image" in names else types.index(IMAGE_FIELD)
    if types[image_at] != IMAGE_FIELD:
        raise ValueError("has a field 'image' that holds no image")

    dtype = metadata_dtype(types)
    metadata_start = HEADER.itemsize + fields * FIELD.itemsize
    metadata = _records(file, dtype, number, metadata_start, length, "metadata")
    table_start = int(header["alloc_table_ptr"])
    if table_start > length or (length - table_start) % ALLOCATION.itemsize:
        raise ValueError(f"is cut short or edited: its allocation table is not whole at the end of its {length} bytes")
    entries = (length - table_start) // ALLOCATION.itemsize
    allocations = _records(file, ALLOCATION, entries, table_start, length, "allocation table")

    image = metadata[f"f{image_at}"]
    if "label" in names and types[names.index("label")] == INT_FIELD:
        label = metadata[f"f{names.index('label')}"].astype(np.int64)
    elif INT_FIELD in types:
        label = metadata[f"f{types.index(INT_FIELD)}"].astype(np.int64)
    else:
        label = np.full(number, -1, dtype=np.int64)
    offset = image["data_ptr"].astype(np.uint64)
    size = _sizes(offset, allocations)
    height, width = image["height"].astype(np.int32), image["width"].astype(np.int32)
    metadata_end = metadata_start + number * dtype.itemsize
    _check(image["mode"], height, width, offset, size, page, metadata_end, table_start)
    return ImageTable(
        (path,),
        (length,),
        np.zeros(number, dtype=np.int32),
        image["mode"].astype(np.uint8),
        height,
        width,
        offset.astype(np.int64),
        size.astype(np.int64),
        label,
    )


def _sizes(offset: NDArray[np.uint64], allocations: NDArray[Any]) -> NDArray[np.uint64]:
    """Size of the allocation that starts at each offset."""
    pointers: NDArray[np.uint64] = allocations["ptr"]
    sizes: NDArray[np.uint64] = allocations["size"]
    if np.array_equal(pointers, offset):
        return sizes
    if not len(pointers):
        raise ValueError("was never finished: its allocation table is empty")
    order = np.argsort(pointers, kind="stable")
    pointers, sizes = pointers[order], sizes[order]
    found = np.minimum(np.searchsorted(pointers, offset), len(pointers) - 1)
    refuse(pointers[found] != offset, "points at data that the allocation table does not list")
    return sizes[found]


def _check(
    mode: NDArray[np.uint8],
    height: NDArray[np.int32],
    width: NDArray[np.int32],
    offset: NDArray[np.uint64],
    size: NDArray[np.uint64],
    page: int,
    start: int,
    end: int,
) -> None:
    """Every number that a decoder would trust, against the data region [start, end) of the file."""
    refuse((offset < start) | (offset >= end), "lies outside the data")
    # Compared this way round because offset + size could wrap around.
    refuse((size < 1) | (size > np.uint64(end) - offset), "ends outside the data")
    refuse(offset // np.uint64(page) != (offset + size - np.uint64(1)) // np.uint64(page), "crosses a page")
    check_pixels(mode, height, width, size)


def read_table(path: str | os.PathLike[str]) -> ImageTable:
    """Reads where the images of a .beton lie, and checks every number against the file.

    Raises:
        ValueError: the file is truncated, foreign, of another version or edited; one line that names it.
        OSError: it cannot be opened or read.
    """
    path = Path(path)
    with open(path, "rb", opener=regular) as file:
        try:
            return _read(path, file)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None


def file_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the card keeps of the file itself: its length, and a checksum of all its bytes that are not image data.

    Those (header, fields, metadata and allocation table) are cheap to read, about 50 bytes a sample, and name the place
    and size of every image, so they tell one file from another. Call it on a file that `read_table` accepts.
    """
    with open(path, "rb", opener=regular) as file:
        length = os.fstat(file.fileno()).st_size
        header = _records(file, HEADER, 1, 0, length, "header")[0]
        descriptors = _records(file, FIELD, int(header["num_fields"]), HEADER.itemsize, length, "list of fields")
        itemsize = metadata_dtype([int(type_id) for type_id in descriptors["type_id"]]).itemsize
        end = HEADER.itemsize + descriptors.nbytes + int(header["num_samples"]) * itemsize
        file.seek(0)
        front = file.read(end)
        file.seek(int(header["alloc_table_ptr"]))
        return {"bytes": length, "checksum": hexadecimal(front + file.read())}


def checked_table(path: Path, recorded: dict[str, Any]) -> ImageTable:
    """The table of the file that a card describes by `file_facts`.

    Raises:
        ValueError: it is cut, edited or another file; one line.
        OSError: it cannot be read.
    """
    length = path.stat().st_size
    if recorded["bytes"] != length:
        what = "cut short or still being copied" if length < recorded["bytes"] else "another file"
        raise ValueError(f"{path} has {length} bytes and its card says {recorded['bytes']} ({what})")
    table = read_table(path)
    if file_facts(path)["checksum"] != recorded["checksum"]:
        raise ValueError(f"{path} is not the file that its card describes (checksums differ)")
    return table
