"""The compiled function that decodes the images of a batch and cuts their views, on one core of a CPU.

FFCV's kernels decode (libjpeg-turbo) and resize by area (OpenCV); `pillow_kernels.py` has the other filters. The
function holds no lock, so a few Python threads run it side by side on slices of a batch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pipelines.executors import ffcv_kernels
from pipelines.executors.damage import GREY
from pipelines.formats.image_table import JPEG, RAW
from pipelines.plan.views import RESIZE

_BILINEAR, _BICUBIC = RESIZE.index("bilinear"), RESIZE.index("bicubic")

# The compiled functions have no annotations, because Numba infers the types of their arguments:
# mypy: allow-untyped-defs


@cache
def compiled_cut() -> Any:
    """Return the function.

    It is compiled once per process, because Numba cannot cache machine code that calls a library loaded by ctypes.

    Raises:
        ModuleNotFoundError: FFCV is not installed.
    """
    imdecode, area_resize = ffcv_kernels.load()

    import numba  # here, because importing it takes a second
    import numpy as np
    from numba import types
    from numba.extending import intrinsic

    from pipelines.executors import pillow_kernels

    @intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
    def as_pointer(context: Any, address: Any) -> Any:
        """Return an address, which is a number, as a pointer that `carray` reads at."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

        return types.voidptr(address), generate

    @numba.njit(nogil=True)
    def cut(
        address_S,
        mode_S,
        length_S,
        height_S,
        width_S,
        crop_VS4,
        flip_VS,
        size_V,
        resize_V,
        offset_V,
        output,
        bad_S,
        scratch,
        start,
        stop,
    ):
        """Write the views of samples start to stop.

        Args:
            address_S, mode_S, length_S, height_S, width_S: address, mode, bytes and sides of each stored image.
            crop_VS4, flip_VS: boxes (top, left, height, width) and horizontal flips.
            size_V: side of each view, in pixels.
            resize_V: filter of each view, a position in `RESIZE`.
            offset_V: first byte of each view in the output.
            output: uint8, all views as rows of pixels, [S, size, size, 3] each.
            bad_S: which samples are damaged; samples that do not decode are added. Their views become grey.
            scratch: uint8, holds the largest decoded image.
        """
        for sample in range(start, stop):
            address, height, width = address_S[sample], np.int64(height_S[sample]), np.int64(width_S[sample])
            pixels = address
            if bad_S[sample]:
                pass
            elif mode_S[sample] == JPEG:
                pixels = np.int64(scratch.ctypes.data)
                failed = imdecode(
                    address, length_S[sample], height, width, pixels, height, width, 0, 0, 1, 1, False, False
                )
                bad_S[sample] = failed != 0
            elif mode_S[sample] != RAW:
                bad_S[sample] = True
            for view in range(len(size_V)):
                size = size_V[view]
                first = offset_V[view] + sample * size * size * 3
                target = output[first : first + size * size * 3]
                if bad_S[sample]:
                    target[:] = GREY
                    continue
                top, left = np.int64(crop_VS4[view, sample, 0]), np.int64(crop_VS4[view, sample, 1])
                bottom, right = top + crop_VS4[view, sample, 2], left + crop_VS4[view, sample, 3]
                rows = target.reshape(size, size, 3)
                if resize_V[view] == _BILINEAR or resize_V[view] == _BICUBIC:
                    box = numba.carray(as_pointer(pixels), height * width * 3, np.uint8)[3 * (top * width + left) :]
                    cubic = resize_V[view] == _BICUBIC
                    pillow_kernels.resize(box, 3 * width, bottom - top, right - left, cubic, rows)
                else:
                    area_resize(0, pixels, height, width, top, bottom, left, right, target.ctypes.data, size, size)
                if flip_VS[view, sample]:
                    _mirror(rows)

    @numba.njit(nogil=True)
    def _mirror(rows):
        size = len(rows)
        for row in range(size):
            for column in range(size // 2):
                for channel in range(3):
                    left_value = rows[row, column, channel]
                    rows[row, column, channel] = rows[row, size - 1 - column, channel]
                    rows[row, size - 1 - column, channel] = left_value

    return cut
