"""JPEGs decoded once for all that conversion needs: the pixels, and whether training can read the bytes.

FFCV hands the bytes to libjpeg-turbo and takes a mere warning for a failure, so a JPEG that other programs show may not
be readable there. The same functions of the same library are called here, but with the accurate transform, whose pixels
equal Pillow's bit for bit. (FFCV's own call takes the fast one, which is 0.7 levels darker in the mean on photos.)
Without FFCV there is nothing to ask, and every JPEG that Pillow reads is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.conversion.turbojpeg import ACCURATE, RGB, decompressor, functions


def decode(data: bytes, height: int, width: int) -> NDArray[np.uint8] | None:
    """Return RGB pixels [H, W, 3]; None where FFCV would report an error or a warning.

    Args:
        height, width: as the header says.
    """
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    target = pixels.ctypes.data, width, 0, height, RGB, ACCURATE
    return pixels if functions().tjDecompress2(decompressor(), data, len(data), *target) == 0 else None
