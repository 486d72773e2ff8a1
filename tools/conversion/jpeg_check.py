"""Does FFCV's decoder take a JPEG as it is?

FFCV hands the bytes to libjpeg-turbo and takes a mere warning for a failure, so a JPEG that other programs show may not
be readable there. Without FFCV there is nothing to ask, and every JPEG that Pillow reads is taken.
"""

from __future__ import annotations

import numpy as np

from pipelines.executors import ffcv_kernels


def decodes_cleanly(data: bytes, height: int, width: int) -> bool:
    """True if FFCV decodes these bytes to [height, width, 3] without a warning, or if FFCV is not here."""
    try:
        imdecode = ffcv_kernels.load().imdecode
    except ModuleNotFoundError:
        return True
    target = np.empty(height * width * 3, dtype=np.uint8)
    crop_and_scale = (height, width, 0, 0, 1, 1, False, False)
    return bool(imdecode(data, len(data), height, width, target.ctypes.data, *crop_and_scale) == 0)
