"""The sides that a JPEG states in its header, found without decoding it; compiled where Numba is there.

Compiled once per machine: Numba keeps the machine code beside this file. Without it the same functions run as they are.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

if find_spec("numba") is None:
    _jit: Any = lambda function: function  # noqa: E731
else:
    import numba

    _jit = numba.njit(nogil=True, cache=True)

NONE = (-1, -1)


@_jit
def sides_from(data, start, length):  # type: ignore[no-untyped-def]  # Numba infers them
    """Height and width that the header of a JPEG, `length` bytes of `data` from `start` on, states; -1 where none."""
    at, end = start + 2, start + length - 8
    if end < at or data[start] != 0xFF or data[start + 1] != 0xD8:
        return (-1, -1)
    while at < end:
        marker = np.int64(data[at + 1])
        if data[at] != 0xFF or marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # begins with the picture's sides
            height = np.int64(data[at + 5]) << 8 | np.int64(data[at + 6])
            return height, np.int64(data[at + 7]) << 8 | np.int64(data[at + 8])
        elif marker in (0xD9, 0xDA):  # the end, or the pixels begin
            return (-1, -1)
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # has no length
            at += 2
        else:
            at += 2 + max(np.int64(2), np.int64(data[at + 2]) << 8 | np.int64(data[at + 3]))
    return (-1, -1)


@_jit
def compare_sides(data, start_S, size_S, jpeg_S, height_S, width_S, bad_S):  # type: ignore[no-untyped-def]
    """Marks the images of one file, of those that are JPEGs, whose header states other sides than these."""
    for place in range(len(start_S)):
        if jpeg_S[place]:
            height, width = sides_from(data, start_S[place], size_S[place])
            bad_S[place] = height != height_S[place] or width != width_S[place]
