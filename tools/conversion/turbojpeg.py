"""The functions of libjpeg-turbo that FFCV calls, through ctypes, so that conversion decodes with what training has."""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

from pipelines.executors import ffcv_kernels

RGB, ACCURATE, NO_REALLOC = 0, 4096, 1024  # TJPF_RGB, TJFLAG_ACCURATEDCT, TJFLAG_NOREALLOC
YCBCR, GREY = 1, 2  # TJCS
FULL_COLOUR, QUARTER_COLOUR, NO_COLOUR = 0, 2, 3  # TJSAMP_444, TJSAMP_420, TJSAMP_GRAY
#: Pixels for each value of a colour plane, across and down, by TJSAMP.
COLOUR_STEP = {0: (1, 1), 1: (2, 1), 2: (2, 2), 4: (1, 2), 5: (4, 1)}
_of_thread = threading.local()


def available() -> bool:
    """Whether FFCV, and so this library, is there."""
    try:
        ffcv_kernels.load()
    except ModuleNotFoundError:
        return False
    return True


def decompressor() -> int:
    """Return this thread's handle for decoding."""
    if not hasattr(_of_thread, "decompressor"):
        _of_thread.decompressor = functions().tjInitDecompress()
    handle: int = _of_thread.decompressor
    return handle


def compressor() -> int:
    """Return this thread's handle for encoding."""
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = functions().tjInitCompress()
    handle: int = _of_thread.compressor
    return handle


@cache
def functions() -> Any:
    """Return the library. Every function that decodes or encodes returns 0, or -1 after an error or a warning."""
    library = ctypes.CDLL(ffcv_kernels.load().library._name)  # an object of its own, since types belong to the object
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
    for name in ("tjInitDecompress", "tjInitCompress"):
        getattr(library, name).restype = pointer
    # handle, source, size, target, width, bytes a row, height, pixel format, flags
    library.tjDecompress2.argtypes = [pointer, ctypes.c_char_p, size, pointer, *[number] * 5]
    # handle, source, size; and then where to write width, height, subsampling and colour space
    library.tjDecompressHeader3.argtypes = [pointer, ctypes.c_char_p, size, *[ctypes.POINTER(number)] * 4]
    # handle, source, size, planes, width, bytes a row of each, height, flags
    library.tjDecompressToYUVPlanes.argtypes = [
        pointer,
        ctypes.c_char_p,
        size,
        pointer,
        number,
        pointer,
        number,
        number,
    ]
    # handle, planes, width, bytes a row of each, height, subsampling, target, its size, quality, flags
    library.tjCompressFromYUVPlanes.argtypes = [pointer, pointer, number, pointer, *[number] * 2]
    library.tjCompressFromYUVPlanes.argtypes += [pointer, ctypes.POINTER(size), number, number]
    library.tjBufSize.argtypes, library.tjBufSize.restype = [number] * 3, size
    for name in ("tjPlaneWidth", "tjPlaneHeight"):
        getattr(library, name).argtypes = [number] * 3
    return library
