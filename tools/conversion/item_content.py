"""The content of an image of a source, wherever it lies: the bytes of an image file, or pixels."""

from __future__ import annotations

from tools.conversion.byte_locations import ByteRange, GreyPlane, Image, ParquetCell, Planes, fetch, pixels
from tools.conversion.parquet_rows import fetch_cell


def fetch_content(content: ByteRange | Planes | GreyPlane | ParquetCell | Image) -> bytes | Image:
    """Return the bytes of an image file, or the pixels [H, W, 3] or [H, W] of an image that is stored without one.

    Raises:
        OSError, ValueError: they cannot be read, or are damaged.
    """
    if isinstance(content, ByteRange):
        return fetch(content)
    if isinstance(content, ParquetCell):
        return fetch_cell(content)
    return pixels(content) if isinstance(content, Planes | GreyPlane) else content
