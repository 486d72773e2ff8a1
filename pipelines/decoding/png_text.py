"""PNG files without their texts. A library refuses a whole picture for the length of a text that nobody here reads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_Result = TypeVar("_Result")


def decoded(data: bytes, decode: Callable[[bytes], _Result]) -> _Result:
    """Return `decode(data)`, of a PNG without its texts where Pillow refuses it for them.

    Texts are kept otherwise: some programs write the orientation as one.
    """
    try:
        return decode(data)
    except ValueError as error:
        if "MAX_TEXT" not in str(error):  # Pillow's bound on the texts of a PNG
            raise
        return decode(without_texts(data))


def without_texts(data: bytes) -> bytes:
    """Return a PNG without its text chunks; other bytes, and a PNG that is cut short, are returned as they are."""
    if not data.startswith(SIGNATURE):
        return data
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 12 + size  # length, kind, content, checksum
        if data[at + 4 : at + 8] not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join((*kept, data[at:]))
