"""The threads in which images are decoded."""

from __future__ import annotations

import os
import time

from pipelines.executors.decode import decode_all


def doubled(threads: int) -> list[int]:
    found: list[int] = []
    decode_all(lambda start: found.append(2 * start), range(4), threads)
    return sorted(found)


def test_a_forked_process_has_threads_of_its_own() -> None:
    """Those of its parent stay there, and whoever gave them work would wait for ever."""
    assert doubled(2) == [0, 2, 4, 6]
    child = os.fork()
    if child == 0:
        os._exit(int(doubled(2) != [0, 2, 4, 6]))
    until = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, 9)
        time.sleep(0.01)
    assert ended == (child, 0)
