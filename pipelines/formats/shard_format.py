"""The shard format: a folder of WebDataset tars, with an index that gives random access to every image in them.

    photos-shards/shard-000000.tar    KEY.jpg, or KEY.ppm where the pixels are stored raw, and KEY.cls, the label
    photos-shards/shard-000001.tar    ...
    photos-shards/index               byte range, sides, label and digest of every image; 44 bytes an image
    photos-shards/card.json, names    as beside a .beton

The tars are plain POSIX ones, which tar, webdataset and DALI's own reader read. Random access uses only the index; the
tars' headers are never parsed. An image's byte range begins where its JPEG begins, or behind the PPM's header, so its
bytes, and their checksums, are the same as in a .beton.

    index: header | records[N], little-endian

This file has the layout and the reader; `shard_writer.py` writes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.digests import DIGEST_SIZE, hexadecimal
from pipelines.formats.format import Format
from pipelines.formats.image_table import RAW, ImageTable, check_pixels, refuse
from pipelines.formats.regular_file import content, regular

MAGIC = b"LIKEIDX1"
BLOCK = 512  # bytes of a block of a tar
HEADER = np.dtype([("magic", "S8"), ("number", "<u8"), ("shards", "<u8"), ("digest", "V16")])
RECORD = np.dtype(
    [
        ("offset", "<u8"),
        ("size", "<u4"),
        ("shard", "<u4"),
        ("width", "<u2"),
        ("height", "<u2"),
        ("label", "<i4"),
        ("mode", "<u4"),
        ("digest", "V16"),
    ]
)
INDEX = "index"


def shard_name(number: int) -> str:
    """Return the file name of shard `number`, counted from 0."""
    return f"shard-{number:06d}.tar"


def is_shard_folder(path: Path) -> bool:
    """Whether a folder has an index of shards or a first shard; it may be incomplete."""
    try:
        with open(path / INDEX, "rb", opener=regular) as file:
            begins = file.read(len(MAGIC))
    except OSError:
        begins = b""
    return begins == MAGIC or (path / shard_name(0)).is_file()


def index_bytes(records: NDArray[Any], shards: int) -> bytes:
    """Return the bytes of the index file for `records` [N] of `RECORD` in so many shards."""
    body = records.astype(RECORD, copy=False).tobytes()
    header = np.zeros(1, dtype=HEADER)
    header[0] = (MAGIC, len(records), shards, bytes.fromhex(hexadecimal(body)))
    return header.tobytes() + body


def read_index(path: Path) -> tuple[NDArray[Any], int]:
    """Return the records [N] of an index file, and the number of shards.

    Raises:
        ValueError: it is truncated or foreign, or its own checksum differs; one line.
        OSError: it cannot be read.
    """
    return _parsed_index(path, content(path))


def _parsed_index(path: Path, data: bytes) -> tuple[NDArray[Any], int]:
    if len(data) < HEADER.itemsize or data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is no index of shards that this program reads")
    header = np.frombuffer(data, dtype=HEADER, count=1)[0]
    expected = HEADER.itemsize + int(header["number"]) * RECORD.itemsize
    if len(data) != expected:
        raise ValueError(f"{path} is cut short or edited: it has {len(data)} bytes and its header asks for {expected}")
    body = memoryview(data)[HEADER.itemsize :]
    if hexadecimal(bytes(body)) != bytes(header["digest"]).hex():
        raise ValueError(f"{path} is damaged or edited (its checksum differs)")
    return np.frombuffer(body, dtype=RECORD), int(header["shards"])


def file_facts(path: Path) -> dict[str, Any]:
    """Return what the card keeps of the files: bytes in all, the index's checksum, and the length of every shard.

    Raises:
        ValueError: the index is damaged; one line.
        OSError: a file is missing or cannot be read.
    """
    index = content(path / INDEX)
    _, shards = _parsed_index(path / INDEX, index)
    lengths = [os.stat(path / shard_name(number)).st_size for number in range(shards)]
    return {"bytes": sum(lengths) + len(index), "checksum": hexadecimal(index), "shards": lengths}


def checked_shards(path: Path, recorded: dict[str, Any]) -> tuple[tuple[Path, ...], tuple[int, ...], NDArray[Any]]:
    """Return the shards, their lengths and the index's records [N], after comparing all with `file_facts`.

    No shard is opened.

    Raises:
        ValueError: a file is missing, truncated or edited, or belongs to another data set; one line.
        KeyError: the card lacks a fact.
        OSError: a file cannot be read.
    """
    lengths = tuple(int(length) for length in recorded["shards"])
    files = tuple(path / shard_name(number) for number in range(len(lengths)))
    for file, expected in zip(files, lengths, strict=True):
        try:
            length = file.stat().st_size
        except FileNotFoundError:
            raise ValueError(f"{path} lacks its shard {file.name}, one of {len(files)}") from None
        if length != expected:
            what = "cut short or still being copied" if length < expected else "another file"
            raise ValueError(f"{file} has {length} bytes and its card says {expected} ({what})")
    try:
        records, shards = read_index(path / INDEX)
    except FileNotFoundError:
        raise ValueError(f"{path} lacks its index") from None
    if hexadecimal(content(path / INDEX)) != recorded["checksum"] or shards != len(files):
        raise ValueError(f"{path / INDEX} is not the index that its card describes (checksums differ)")
    return files, lengths, records


def checked_table(path: Path, recorded: dict[str, Any]) -> ImageTable:
    """Return the table of the folder that a card describes by `file_facts`.

    Raises:
        ValueError, KeyError, OSError: as `checked_shards`; ValueError also where a number of the index is impossible.
    """
    files, lengths, records = checked_shards(path, recorded)
    try:
        return _table(files, lengths, records)
    except ValueError as error:
        raise ValueError(f"{path / INDEX} {error}") from None


def _table(files: tuple[Path, ...], lengths: tuple[int, ...], records: NDArray[Any]) -> ImageTable:
    if not len(records):
        raise ValueError("holds no samples")
    refuse(records["shard"] >= len(files), "lies in a shard that does not exist")
    refuse(records["mode"] > RAW, "is neither JPEG nor raw")  # before it is narrowed to 8 bits
    table = ImageTable(
        files,
        lengths,
        records["shard"].astype(np.int32),
        records["mode"].astype(np.uint8),
        records["height"].astype(np.int32),
        records["width"].astype(np.int32),
        records["offset"].astype(np.int64),
        records["size"].astype(np.int64),
        records["label"].astype(np.int64),
        np.ascontiguousarray(records["digest"]),
    )
    end = np.array(lengths, dtype=np.uint64)[table.file]
    refuse((records["offset"] < BLOCK) | (records["offset"] >= end), "lies outside its shard")
    # Compared this way round because offset + size could wrap around.
    refuse((table.size < 1) | (records["size"] > end - records["offset"]), "ends outside its shard")
    check_pixels(table.mode, table.height, table.width, table.size.astype(np.uint64))
    return table


def sample_digests(records: NDArray[Any]) -> bytes:
    """Return the images' digests from the index's records [N], joined in index order."""
    joined = np.ascontiguousarray(records["digest"]).tobytes()
    assert len(joined) == len(records) * DIGEST_SIZE
    return joined


SHARDS = Format(
    name="shards",
    summary="a folder of WebDataset tars, for DALI and for other programs",
    is_folder=True,
    suffix="",
    splittable=True,
    recognise=is_shard_folder,
    file_facts=file_facts,
    checked_table=checked_table,
)
