"""A limit on the time that a block may take, for what cannot be interrupted from Python, such as a GPU that hangs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from tools.run.process_start import tell


@contextmanager
def time_limit(seconds: float | None, on_expiry: Callable[[], object]) -> Iterator[None]:
    """Calls `on_expiry` from another thread if the block has not ended after so many seconds; None sets no limit."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, on_expiry)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def restart(line: str, words: Sequence[str]) -> NoReturn:
    """Says why, and starts this program again in this process, with further options on its command line."""
    tell(line)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *words])
