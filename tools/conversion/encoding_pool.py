"""Encodes images in many processes, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from pipelines.decoding.png_text import decoded
from tools.conversion.byte_locations import Image, Item, Kept, ParquetCell, fetch
from tools.conversion.encode import Encoded, Settings, encode_again, encode_array, encode_bytes
from tools.conversion.file_kinds import foreign, foreign_kind
from tools.conversion.item_content import fetch_content
from tools.conversion.library_warnings import c_lines_as_warnings, collected
from tools.conversion.process_pool import in_order

CHUNK = 128  # images a task: enough to make the transport cheap, few enough to keep all workers busy


class Stored(NamedTuple):
    """What a worker made of one image; without the pixels."""

    mode: int
    height: int
    width: int
    kind: int
    data: bytes


class Chunk(NamedTuple):
    """What a worker made of some images.

    Attributes:
        images: one entry for each item; a str is the reason why it cannot be converted.
        digests: 16 bytes for each image that can be.
        moments: [good images, 6] mean and mean square of red, green and blue, 0 to 1; 0 of images that were taken over
            without decoding them.
        extremes: uint8 [decoded images, 2] the smallest and largest value of each image that was decoded.
        warned: (name of an image, what a library said while it was decoded).
    """

    images: list[Stored | str]
    digests: bytes
    moments: NDArray[np.float64]
    extremes: NDArray[np.uint8]
    warned: list[tuple[str, str]]


def _encode(item: Item, settings: Settings) -> Encoded:
    if isinstance(item.content, Kept):
        place, mode, height, width = item.content
        return encode_again(fetch(place), mode, height, width, settings)
    content = fetch_content(item.content)
    return _encode_file(content, settings) if isinstance(content, bytes) else encode_array(in_colour(content), settings)


def in_colour(array: Image) -> Image:
    """Pixels [H, W, 3] of an image [H, W] or [H, W, 3]."""
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)


def _encode_file(data: bytes, settings: Settings) -> Encoded:
    """Encode the bytes of an image file, whatever texts it carries; name a kind of picture that is not decoded here."""
    try:
        with c_lines_as_warnings(data):
            return decoded(data, lambda kept: encode_bytes(kept, settings))
    except UnidentifiedImageError:
        if kind := foreign_kind(data):
            raise ValueError(foreign(kind)) from None
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if type(error).__name__ == "UnidentifiedImageError":
        return "is not an image that can be read"
    text = " ".join(str(error).split())
    return text if text and type(error) is ValueError else f"cannot be decoded: {text or type(error).__name__}"


def encode_chunk(task: tuple[list[Item], Settings]) -> Chunk:
    """Encodes some images; a bad one is a reason among the results, never an exception."""
    items, settings = task
    images: list[Stored | str] = []
    warned: list[tuple[str, str]] = []
    digests, moments, extremes = [], [], []
    for item in items:
        try:
            with collected() as said:
                made = _encode(item, settings)
        except Exception as error:  # hostile bytes make decoders raise anything
            images.append(_reason(error))
            continue
        warned += [(item.name, line) for line in said]
        images.append(Stored(made.mode, made.height, made.width, made.kind, made.data))
        digests.append(hashlib.blake2b(made.data, digest_size=16).digest())
        count = made.height * made.width
        moments.append(np.concatenate((made.sums / (255 * count), made.squares / (255 * 255 * count))))
        if made.extremes is not None:
            extremes.append(made.extremes)
    extremes_N2 = np.array(extremes, dtype=np.uint8).reshape(-1, 2)
    return Chunk(images, b"".join(digests), np.array(moments).reshape(-1, 6), extremes_N2, warned)


def chunk_size(number: int, workers: int) -> int:
    """Return how many of `number` images are one task."""
    return max(1, min(CHUNK, number // (4 * workers)))


def chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Yield pieces of at most `size` items, in order.

    No piece has images of two row groups of a parquet file, as a process has to read all of a group.
    """
    for _, group in groupby(items, _row_group):
        while chunk := list(islice(group, size)):
            yield chunk


def _row_group(item: Item) -> tuple[str, int] | None:
    return (item.content.path, item.content.group) if isinstance(item.content, ParquetCell) else None


def encode_all(items: list[Item], settings: Settings, workers: int) -> Iterator[Chunk]:
    """Chunks of encoded images in the order of the items; the result does not depend on the number of workers.

    Raises:
        WorkerError: a worker was killed, for instance by the system for want of memory.
    """
    tasks = ((chunk, settings) for chunk in chunks(items, chunk_size(len(items), workers)))
    return in_order(encode_chunk, tasks, workers)
