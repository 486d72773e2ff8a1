"""The .beton format: FFCV's own (version 2), read and written here without FFCV.

    header | field descriptors | metadata[capacity] | ... | page | page | ... | allocation table

A page starts at a multiple of the page size, holds complete samples only, and is the unit in which FFCV reads. The
allocation table lists (sample, offset, size) in any order, so an image's size is found through its offset. This file
has the layout and the reader; `beton_writer.py` writes. Source: `ffcv/writer.py` and `ffcv/types.py` of ffcv 1.0.2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.digests import hexadecimal
from pipelines.formats.format import Format
from pipelines.formats.image_table import ImageTable, check_pixels, refuse
from pipelines.formats.regular_file import regular

VERSION = 2
SUFFIX = ".beton"
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
# The metadata of one sample for each of FFCV's field types: float, int, image, bytes, array, JSON, tensor.
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
    """Return the type of one sample's metadata as FFCV builds it: aligned, with fields named f0, f1, ..."""
    return np.dtype([("", FIELD_METADATA[type_id]) for type_id in type_ids], align=True)


def _records(file: BinaryIO, dtype: np.dtype[Any], count: int, offset: int, length: int, what: str) -> NDArray[Any]:
    """Return `count` records that start at `offset`.

    Args:
        length: bytes of the file; what does not fit into it is refused before memory is allocated.
        what: the records' name for the message.

    Raises:
        ValueError: the file is too short.
    """
    if offset + count * dtype.itemsize > length:
        raise ValueError(f"is cut short or edited: its {what} ends beyond its {length} bytes")
    file.seek(offset)
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"is cut short: its {what} cannot be read")
    return np.frombuffer(data, dtype=dtype)


class _Layout(NamedTuple):
    """What a file says before its data, checked against its length.

    Attributes:
        length: bytes of the file.
        page: bytes of a page.
        samples: their number.
        image: name of the image field's column in `metadata`.
        label: the same for the label; None where the file has no integer field.
        metadata_start: offset of the metadata, in bytes.
        metadata: structured array [samples].
        table_start: offset of the allocation table, in bytes.
    """

    length: int
    page: int
    samples: int
    image: str
    label: str | None
    metadata_start: int
    metadata: NDArray[Any]
    table_start: int


def _read_layout(file: BinaryIO) -> _Layout:
    length = os.fstat(file.fileno()).st_size
    header = _records(file, HEADER, 1, 0, length, "header")[0]
    if header["version"] != VERSION:
        raise ValueError(f"is no .beton of version {VERSION} (it says {header['version']})")
    page, samples, fields = int(header["page_size"]), int(header["num_samples"]), int(header["num_fields"])
    if page == 0 or page & (page - 1):
        raise ValueError(f"is no .beton or was edited: its page size is {page}, not a power of two")
    if samples == 0:
        raise ValueError("holds no samples or was never finished")
    descriptors = _records(file, FIELD, fields, HEADER.itemsize, length, "list of fields")
    types = [int(type_id) for type_id in descriptors["type_id"]]
    names = [bytes(name).split(b"\0")[0].decode("latin-1") for name in descriptors["name"]]
    unknown = [name for name, type_id in zip(names, types, strict=True) if type_id not in FIELD_METADATA]
    if unknown:
        raise ValueError(f"has a field {unknown[0]!r} of a type that is not FFCV's own")
    image, label = _column(types, names, "image", IMAGE_FIELD), _column(types, names, "label", INT_FIELD)
    if image is None:
        raise ValueError("has no image field")
    if "image" in names and types[names.index("image")] != IMAGE_FIELD:
        raise ValueError("has a field 'image' that holds no image")
    metadata_start = HEADER.itemsize + fields * FIELD.itemsize
    metadata = _records(file, metadata_dtype(types), samples, metadata_start, length, "metadata")
    table_start = int(header["alloc_table_ptr"])
    if table_start > length or (length - table_start) % ALLOCATION.itemsize:
        raise ValueError(
            f"is cut short or edited: its allocation table is not complete at the end of its {length} bytes"
        )
    return _Layout(length, page, samples, image, label, metadata_start, metadata, table_start)


def _column(types: list[int], names: list[str], name: str, type_id: int) -> str | None:
    """Return the column of the field called `name`, else of the first field of its type, else None."""
    if name in names and types[names.index(name)] == type_id:
        return f"f{names.index(name)}"
    return f"f{types.index(type_id)}" if type_id in types else None


def _read(path: Path, file: BinaryIO) -> ImageTable:
    layout = _read_layout(file)
    metadata, number = layout.metadata, layout.samples
    entries = (layout.length - layout.table_start) // ALLOCATION.itemsize
    allocations = _records(file, ALLOCATION, entries, layout.table_start, layout.length, "allocation table")
    image = metadata[layout.image]
    label = np.full(number, -1, dtype=np.int64) if layout.label is None else metadata[layout.label].astype(np.int64)
    offset = image["data_ptr"].astype(np.uint64)
    size = _sizes(offset, allocations)
    height, width = image["height"].astype(np.int32), image["width"].astype(np.int32)
    data = range(layout.metadata_start + metadata.nbytes, layout.table_start)
    _check(image["mode"], height, width, offset, size, layout.page, data)
    return ImageTable(
        (path,),
        (layout.length,),
        np.zeros(number, dtype=np.int32),
        image["mode"].astype(np.uint8),
        height,
        width,
        offset.astype(np.int64),
        size.astype(np.int64),
        label,
    )


def _sizes(offset: NDArray[np.uint64], allocations: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the size [N], in bytes, of the allocation that starts at each offset [N]."""
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
    data: range,
) -> None:
    """Refuse a number [N] that a decoder must not trust; `data` are the bytes of the file that hold samples."""
    refuse((offset < data.start) | (offset >= data.stop), "lies outside the data")
    # Compared this way round because offset + size could wrap around.
    refuse((size < 1) | (size > np.uint64(data.stop) - offset), "ends outside the data")
    refuse(offset // np.uint64(page) != (offset + size - np.uint64(1)) // np.uint64(page), "crosses a page")
    check_pixels(mode, height, width, size)


def read_table(path: str | os.PathLike[str]) -> ImageTable:
    """Return the table of a .beton's images, with every number checked against the file.

    Raises:
        ValueError: the file is truncated, edited, foreign or of another version; one line that names it.
        OSError: it cannot be opened or read.
    """
    path = Path(path)
    with open(path, "rb", opener=regular) as file:
        try:
            return _read(path, file)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None


def is_beton(path: Path) -> bool:
    """Whether a file has the suffix or the header of a .beton; it may be damaged."""
    if path.is_dir():
        return False
    if path.suffix == SUFFIX:
        return True
    try:
        with open(path, "rb", opener=regular) as file:
            header = np.frombuffer(file.read(HEADER.itemsize), dtype=HEADER)[0]
    except (OSError, ValueError, IndexError):  # the last two: a shorter or an empty file
        return False
    page = int(header["page_size"])
    return bool(header["version"] == VERSION and header["num_fields"] > 0 and page >= 1 << 12 and not page & (page - 1))


def file_facts(path: Path) -> dict[str, Any]:
    """Return what the card keeps of the file: its length, and a checksum of all bytes that are not image data.

    Those (header, fields, metadata and allocation table) are cheap to read, about 50 bytes a sample, and hold the
    offset and size of every image, so they tell one file from another.

    Raises:
        ValueError: the file is no complete .beton.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=regular) as file:
        layout = _read_layout(file)
        file.seek(0)
        front = file.read(layout.metadata_start + layout.metadata.nbytes)
        file.seek(layout.table_start)
        return {"bytes": layout.length, "checksum": hexadecimal(front + file.read())}


def checked_table(path: Path, recorded: dict[str, Any]) -> ImageTable:
    """Return the table of the file that a card describes by `file_facts`.

    Raises:
        ValueError: the file is truncated or edited, or is another file; one line.
        KeyError: the card lacks a fact.
        OSError: the file cannot be read.
    """
    length = path.stat().st_size
    if recorded["bytes"] != length:
        what = "cut short or still being copied" if length < recorded["bytes"] else "another file"
        raise ValueError(f"{path} has {length} bytes and its card says {recorded['bytes']} ({what})")
    table = read_table(path)
    if file_facts(path)["checksum"] != recorded["checksum"]:
        raise ValueError(f"{path} is not the file that its card describes (checksums differ)")
    return table


BETON = Format(
    name="beton",
    summary="one file, FFCV's; smallest, for decoding on the CPU",
    is_folder=False,
    suffix=SUFFIX,
    splittable=False,
    recognise=is_beton,
    file_facts=file_facts,
    checked_table=checked_table,
)
