"""Where the bytes of an image lie: what a worker is given instead of the bytes, and how it fetches them.

This file imports nothing heavy: every worker process loads it.
"""

from __future__ import annotations

import bz2
import os
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.regular_file import regular

STORED, DEFLATED, BZIP2 = 0, 8, 12  # a zip's own numbers for how a member is packed
MAX_BYTES = 1 << 30  # of one file: more than any image that is decoded here, and less than one read can return

Image = NDArray[np.uint8]


class ByteRange(NamedTuple):
    """A range of bytes in a file.

    Attributes:
        path: the file that holds them.
        offset: bytes; where they begin.
        size: bytes in the file, or -1 for all from `offset` on.
        packing: STORED, DEFLATED or BZIP2.
        unpacked: bytes after unpacking, which bounds what a hostile archive can make us allocate; -1 if not packed.
        crc: checksum of the unpacked bytes, -1 if none is known.
    """

    path: str
    offset: int = 0
    size: int = -1
    packing: int = STORED
    unpacked: int = -1
    crc: int = -1


class Planes(NamedTuple):
    """An uncompressed image at a place: `side` x `side` pixels as three colour planes.

    Attributes:
        by_columns: each plane runs down its columns (STL-10) instead of along its rows (CIFAR).
    """

    place: ByteRange
    side: int
    by_columns: bool


class GreyPlane(NamedTuple):
    """An uncompressed grey image.

    Attributes:
        height, width: of the rows of bytes as they are stored.
        turned: each row of bytes is a column of the image (EMNIST).
    """

    place: ByteRange
    height: int
    width: int
    turned: bool


class Kept(NamedTuple):
    """An image of a data set that was converted before.

    Attributes:
        mode: `JPEG` or `RAW` of the format.
        height, width: pixels.
    """

    place: ByteRange
    mode: int
    height: int
    width: int


class ParquetCell(NamedTuple):
    """An encoded image in a parquet file.

    Attributes:
        row: counted from the group's first row.
        bound: bytes; no image of the group has more.
    """

    path: str
    group: int
    row: int
    column: str
    bound: int


Content = ByteRange | Planes | GreyPlane | ParquetCell | Kept | Image


class Item(NamedTuple):
    """One image of a source.

    Attributes:
        name: its path in the source, for messages; undecodable bytes are surrogate escapes.
        label: number of its class, -1 = unlabelled.
        content: where its bytes are, or the pixels themselves: [H, W, 3], or [H, W] of a grey image.
    """

    name: str
    label: int
    content: Content


def fetch(place: ByteRange) -> bytes:
    """The bytes at a place, unpacked and checked.

    Raises:
        OSError, ValueError: they cannot be read, or are damaged.
    """
    handle = regular(place.path)  # plain system calls, as this runs once for each of millions of small files
    try:
        size = place.size if place.size >= 0 else os.fstat(handle).st_size - place.offset
        if max(size, place.unpacked) > MAX_BYTES:
            raise ValueError(f"has {max(size, place.unpacked):,} bytes; an image may have {MAX_BYTES:,}")
        data = os.pread(handle, size, place.offset)
    finally:
        os.close(handle)
    if len(data) != size:
        raise ValueError("is cut short")
    try:
        if place.packing == DEFLATED:
            data = zlib.decompressobj(-15).decompress(data, place.unpacked + 1)  # negative: the raw stream of a zip
        elif place.packing == BZIP2:
            data = bz2.BZ2Decompressor().decompress(data, place.unpacked + 1)
    except (zlib.error, OSError) as error:
        raise ValueError(f"is damaged in the archive ({error})") from None
    if place.unpacked >= 0 and len(data) != place.unpacked:
        raise ValueError(f"unpacks to {len(data)} bytes or more, the archive says {place.unpacked}")
    if place.crc >= 0 and zlib.crc32(data) != place.crc:
        raise ValueError("is damaged in the archive (its checksum differs)")
    return data


def pixels(planes: Planes | GreyPlane) -> Image:
    """The image at a place of raw planes: [side, side, 3], or [H, W] of a grey one."""
    if isinstance(planes, GreyPlane):
        plane = np.frombuffer(fetch(planes.place), dtype=np.uint8).reshape(planes.height, planes.width)
        return plane.T if planes.turned else plane
    side = planes.side
    data = fetch(planes.place)
    cube = np.frombuffer(data, dtype=np.uint8).reshape(3, side, side)
    return np.ascontiguousarray(cube.transpose(2, 1, 0) if planes.by_columns else cube.transpose(1, 2, 0))
