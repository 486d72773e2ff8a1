"""The sides that a JPEG states in its header, found without decoding it.

Numba compiles these functions once per machine and keeps the machine code beside this file. Without Numba the same
functions run as plain Python.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

# The compiled functions have no annotations, because Numba infers the types of their arguments:
# mypy: allow-untyped-defs

if find_spec("numba") is None:

    def _jit(function: Any) -> Any:
        return function

else:
    import numba

    _jit = numba.njit(nogil=True, cache=True)

NONE = (-1, -1)


@_jit
def sides_from(data, start, length):
    """Return height and width that the JPEG in data[start : start + length] states; `NONE` where it states none."""
    at, end = start + 2, start + length - 8
    if end < at or data[start] != 0xFF or data[start + 1] != 0xD8:
        return (-1, -1)
    while at < end:
        marker = np.int64(data[at + 1])
        if data[at] != 0xFF or marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF: a frame header, with the sides
            height = np.int64(data[at + 5]) << 8 | np.int64(data[at + 6])
            return height, np.int64(data[at + 7]) << 8 | np.int64(data[at + 8])
        elif marker in (0xD9, 0xDA):  # EOI, the end, or SOS, where the pixels begin
            return (-1, -1)
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # a marker without a length
            at += 2
        else:
            at += 2 + max(np.int64(2), np.int64(data[at + 2]) << 8 | np.int64(data[at + 3]))
    return (-1, -1)


@_jit
def mark_other_sides(data, start_S, size_S, jpeg_S, height_S, width_S, bad_S):
    """Set bad_S for the images of one file that are JPEGs and whose header does not state the given sides.

    Args:
        data: uint8 [bytes], the file.
        start_S, size_S: [S] byte range of each image.
        jpeg_S: [S] bool, which of them are JPEGs; others are left alone.
        height_S, width_S: [S] expected sides, in pixels.
        bad_S: [S] bool, written for the JPEGs.
    """
    for s in range(len(start_S)):
        if jpeg_S[s]:
            height, width = sides_from(data, start_S[s], size_S[s])
            bad_S[s] = height != height_S[s] or width != width_S[s]
