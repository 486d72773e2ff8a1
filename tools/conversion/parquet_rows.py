"""Reads images out of parquet files. Every worker process loads this file, so pyarrow is imported when it is needed.

Memory: each process keeps the images of one row group, as published files group them: some hundred.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tools.conversion.byte_locations import MAX_BYTES, ParquetCell

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile


def open_parquet(path: str) -> ParquetFile:
    """Open a parquet file as it is now.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path)


_kept_open = lru_cache(maxsize=2)(open_parquet)


@lru_cache(maxsize=1)
def _group(path: str, group: int, column: str) -> Any:
    return _kept_open(path).read_row_group(group, columns=[column]).column(column)


def forget() -> None:
    """Close the files that are kept open; call it before files are listed, which may have changed."""
    _group.cache_clear()
    _kept_open.cache_clear()


def fetch_cell(cell: ParquetCell) -> bytes:
    """Return the bytes of the image file in a cell.

    Raises:
        ValueError: the cell holds none.
    """
    value = _group(cell.path, cell.group, cell.column)[cell.row].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ValueError("has no bytes in the parquet file, only a path" if value else "is empty")
    if len(data) > MAX_BYTES:
        raise ValueError(f"has {len(data):,} bytes; an image may have {MAX_BYTES:,}")
    return data
