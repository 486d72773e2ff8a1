"""Encodes images in many processes, in order, and never waits for a process that is gone."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.encode import Encoded, Settings, encode_again, encode_array, encode_bytes
from tools.places import Item, Kept, Place, Planes, fetch, pixels

CHUNK = 128  # images a task: enough to make the transport cheap, few enough to keep all workers busy


class WorkerError(RuntimeError):
    """A worker process ended without an answer."""


class Stored(NamedTuple):
    """What a worker made of one image; without the pixels."""

    mode: int
    height: int
    width: int
    kind: int
    data: bytes


class Chunk(NamedTuple):
    """What a worker made of some images.

    Attributes:
        images: one entry for each item; a str is the reason why it cannot be converted.
        digests: 16 bytes for each image that can be.
        moments: [good images, 6] mean and mean square of red, green and blue, 0 to 1; 0 of images that were taken over
            without decoding them.
    """

    images: list[Stored | str]
    digests: bytes
    moments: NDArray[np.float64]


def _encode(item: Item, settings: Settings) -> Encoded:
    if isinstance(item.content, Kept):
        place, mode, height, width = item.content
        return encode_again(fetch(place), mode, height, width, settings)
    if isinstance(item.content, Place):
        return encode_bytes(fetch(item.content), settings)
    return encode_array(pixels(item.content) if isinstance(item.content, Planes) else item.content, settings)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if type(error).__name__ == "UnidentifiedImageError":
        return "is not an image that can be read"
    text = " ".join(str(error).split())
    return text if text and type(error) is ValueError else f"cannot be decoded: {text or type(error).__name__}"


def encode_chunk(items: list[Item], settings: Settings) -> Chunk:
    """Encodes some images; a bad one is a reason among the results, never an exception."""
    images: list[Stored | str] = []
    digests, moments = [], []
    for item in items:
        try:
            made = _encode(item, settings)
        except Exception as error:  # hostile bytes make decoders raise anything
            images.append(_reason(error))
            continue
        images.append(Stored(made.mode, made.height, made.width, made.kind, made.data))
        digests.append(hashlib.blake2b(made.data, digest_size=16).digest())
        count = made.height * made.width
        moments.append(np.concatenate((made.sums / (255 * count), made.squares / (255 * 255 * count))))
    return Chunk(images, b"".join(digests), np.array(moments).reshape(-1, 6))


def _begin() -> None:
    """Runs first in a worker."""
    # Ctrl-C goes to every process of the terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The pool's pipes stay open among the workers, so they would wait for ever for a program that was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds SIGTERM and Ctrl-C back: a pool that is left while it starts has workers that find its locks gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def encode_all(items: list[Item], settings: Settings, workers: int) -> Iterator[Chunk]:
    """Chunks of encoded images in the order of the items; the result does not depend on the number of workers.

    Raises:
        WorkerError: a worker was killed, for instance by the system for want of memory.
    """
    size = max(1, min(CHUNK, len(items) // (4 * workers)))
    tasks = (items[start : start + size] for start in range(0, len(items), size))
    if workers == 1:
        yield from (encode_chunk(task, settings) for task in tasks)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.workers"])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    waiting: deque[Future[Chunk]] = deque()
    try:
        with _undisturbed():  # the workers start
            # Only a few tasks ahead: the results of the others would fill the memory.
            for task in islice(tasks, 2 * workers + 2):
                waiting.append(pool.submit(encode_chunk, task, settings))
        while waiting:
            chunk = waiting.popleft().result()
            for task in islice(tasks, 1):
                waiting.append(pool.submit(encode_chunk, task, settings))
            yield chunk
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process was killed (out of memory?); try fewer with --workers, or reduce large images first"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
