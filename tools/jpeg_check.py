"""Does FFCV's decoder take a JPEG as it is?

FFCV hands the bytes to libjpeg-turbo and takes a mere warning for a failure, so a JPEG that other programs show may
come out as noise there. Its library is called directly: importing the package would load torch and numba in every
worker (4 s). Without FFCV there is nothing to ask, and every JPEG that Pillow reads is taken.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


@lru_cache(maxsize=1)
def _imdecode() -> Any:
    spec = find_spec("ffcv")
    for folder in spec.submodule_search_locations or () if spec else ():
        for library in Path(folder).glob("_libffcv*"):
            try:
                function = ctypes.CDLL(str(library)).imdecode
            except (OSError, AttributeError):
                continue
            # source, bytes, height, width, target, crop height and width, offsets, scale, crop and flip switches
            c = ctypes
            function.argtypes = [c.c_char_p, c.c_uint64, c.c_uint32, c.c_uint32, c.c_void_p, *6 * [c.c_uint32]]
            function.argtypes += [c.c_bool, c.c_bool]
            function.restype = c.c_int
            return function
    return None


def decodes_cleanly(data: bytes, height: int, width: int) -> bool:
    """True if FFCV decodes these bytes to [height, width, 3] without a warning, or if FFCV is not here."""
    imdecode = _imdecode()
    if imdecode is None:
        return True
    target = np.empty(height * width * 3, dtype=np.uint8)
    crop_and_scale = (height, width, 0, 0, 1, 1, False, False)
    return bool(imdecode(data, len(data), height, width, target.ctypes.data, *crop_and_scale) == 0)
