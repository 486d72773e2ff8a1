"""Decode one image to RGB pixels, for callers that decode each image once: by FFCV, or by Pillow where FFCV is missing.

Also the threads in which images are decoded, here and in `ffcv.py`.
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

# Given encoded bytes and a target [H, W, 3], decodes into the target and returns whether that succeeded.
Decoder = Callable[[NDArray[np.uint8], NDArray[np.uint8]], bool]


def decoder() -> Decoder:
    """Return FFCV's decoder, whose pixels equal the FFCV executor's, else Pillow's, which differs by a few levels."""
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
    """Decode with Pillow; a `Decoder`."""
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
    """Return a pool of so many threads, which the process keeps and shares.

    FFCV's decoder never frees the 10 KB that it allocates for each thread that uses it, so threads must not be renewed.
    """
    return ThreadPoolExecutor(number, thread_name_prefix="likeness-decode")


os.register_at_fork(after_in_child=decoding_threads.cache_clear)  # a forked process has none of its parent's threads


def decode_all(work: Callable[[int], None], starts: Iterable[int], threads: int) -> None:
    """Call `work` for every start, side by side, and wait for all of them; then raise the first error, if any."""
    running = [decoding_threads(threads).submit(work, start) for start in starts]
    wait(running)
    for future in running:
        future.result()
