"""FFCV's compiled decode and resize functions, loaded from its shared library.

Only the library file is opened, because importing the package `ffcv` takes seconds and is not needed.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

INSTALL = "tools/setup.sh ffcv"


class Kernels(NamedTuple):
    """C functions, callable from Python and from functions compiled by Numba.

    Attributes:
        imdecode: decodes JPEG bytes into rows of RGB pixels; returns 0, or -1 if libjpeg-turbo reported an error or a
            warning.
        resize: crops and resizes rows of RGB pixels with OpenCV's area interpolation.
        library: FFCV's library, in which the functions of libjpeg-turbo can be found as well.
    """

    imdecode: Any
    resize: Any
    library: Any


@cache
def load() -> Kernels:
    """Load FFCV's library, once per process.

    Raises:
        ModuleNotFoundError: FFCV is not installed.
    """
    spec = importlib.util.find_spec("ffcv")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob("_libffcv*.so")]
    if not found:
        raise ModuleNotFoundError(
            f"ffcv is not installed, and the loader 'ffcv' decodes with it; install it with: {INSTALL}"
        )
    library = ctypes.CDLL(str(found[0]))
    imdecode, resize = library.imdecode, library.resize
    # source, size, height, width, target, crop height, crop width, x, y, scale numerator, denominator, crop, flip
    imdecode.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p]
    imdecode.argtypes += [ctypes.c_uint32] * 6 + [ctypes.c_bool] * 2
    imdecode.restype = ctypes.c_int
    # unused, source, height, width, first row, last row, first column, last column, target, height, width
    resize.argtypes = [ctypes.c_int64] * 11
    resize.restype = None
    return Kernels(imdecode, resize, library)
