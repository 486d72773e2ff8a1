"""One encoded image to RGB pixels, for who decodes each image once: by FFCV, or by Pillow where FFCV is missing.

And the threads in which images are decoded, here and in `beton.py`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.executors import ffcv_kernels

Decoder = Callable[[NDArray[np.uint8], NDArray[np.uint8]], bool]  # encoded bytes, target [H, W, 3] -> whether it worked


def decoder() -> Decoder:
    """The same pixels as the FFCV executor's where FFCV is installed; Pillow's are a few levels off."""
    try:
        imdecode = ffcv_kernels.load().imdecode
    except ModuleNotFoundError:
        return with_pillow

    def with_ffcv(encoded: NDArray[np.uint8], target_HW3: NDArray[np.uint8]) -> bool:
        height, width, _ = target_HW3.shape
        source, pixels = encoded.ctypes.data, target_HW3.ctypes.data
        return bool(imdecode(source, encoded.size, height, width, pixels, height, width, 0, 0, 1, 1, False, False) == 0)

    return with_ffcv


def with_pillow(encoded: NDArray[np.uint8], target_HW3: NDArray[np.uint8]) -> bool:
    try:
        pixels = np.asarray(Image.open(io.BytesIO(encoded.data)).convert("RGB"))
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for damaged files
        return False
    if pixels.shape != target_HW3.shape:
        return False
    target_HW3[:] = pixels
    return True


@cache
def decoding_threads(number: int) -> ThreadPoolExecutor:
    """As many threads, for all of this process: FFCV's decoder keeps 10 KB for each thread that ever used it."""
    return ThreadPoolExecutor(number, thread_name_prefix="likeness-decode")


os.register_at_fork(after_in_child=decoding_threads.cache_clear)  # threads do not come along


def decode_all(work: Callable[[int], None], starts: Iterable[int], threads: int) -> None:
    """Does `work` from every start on, side by side; returns, or raises what one of them raised, when none runs."""
    parts = [decoding_threads(threads).submit(work, start) for start in starts]
    wait(parts)
    for part in parts:
        part.result()
