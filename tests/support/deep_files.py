"""Files of pixels that Pillow cannot write: TIFFs of any tags, and PNGs of any depth."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BYTES = {3: "H", 4: "I"}
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's colour type


def tiff(
    pixels: NDArray[np.generic],
    photometric: int | None = 1,
    *,
    sample_format: int = 1,
    compressed: bool = False,
    order: str = "<",
    tags: dict[int, tuple[int, Sequence[int]]] | None = None,
    data: bytes | None = None,
) -> bytes:
    """A TIFF of one strip.

    Args:
        pixels: [H, W] or [H, W, C]; the type gives the bits.
        tags: further ones, or others instead of the usual ones: number -> (type: 3 or 4, values).
        data: the bytes of the strip, if not those of `pixels`.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if data is None:
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if compressed else data
    found: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [pixels.dtype.itemsize * 8] * channels),
        259: (3, [8 if compressed else 1]),
        273: (4, [8]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(data)]),
        339: (3, [sample_format] * channels),
    }
    if photometric is not None:
        found[262] = (3, [photometric])
    found |= tags or {}
    data += bytes(len(data) % 2)
    start, entries, beyond = 8 + len(data), struct.pack(f"{order}H", len(found)), b""
    after = start + 2 + 12 * len(found) + 4
    for tag, (kind, values) in sorted(found.items()):
        packed = struct.pack(f"{order}{len(values)}{_BYTES[kind]}", *values)
        where = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", after + len(beyond))
        beyond += packed if len(packed) > 4 else b""
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + where
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, start) + data + entries + bytes(4) + beyond


def png(pixels: NDArray[np.generic], bits: int, transparent: Sequence[int] | None = None) -> bytes:
    """A PNG of any bits in each channel.

    Args:
        pixels: [H, W, C] of 8 or 16 bits, or [H, W] of fewer, with 1 to 4 channels.
        transparent: the values of the pixels that are transparent.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if bits < 8:
        flat = np.unpackbits(pixels.astype(np.uint8)[..., None], axis=2)[..., -bits:].reshape(height, -1)
        rows = np.packbits(flat, axis=1)
    else:
        rows = pixels.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOUR[channels], 0, 0, 0)
    parts = [b"IHDR" + header]
    if transparent is not None:
        parts.append(b"tRNS" + struct.pack(f">{len(transparent)}H", *transparent))
    parts += [b"IDAT" + zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)), b"IEND"]
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
