"""Memory that a process has freed goes back to the system, also from between pieces that are still held."""

import platform

import psutil
import pytest

from pipelines.memory import release_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its memory in other ways")
def test_freed_memory_is_given_back():
    process = psutil.Process()
    blocks = [bytearray(b"x") * 100_000 for _ in range(2000)]
    held = blocks[::40]
    del blocks
    before = process.memory_info().rss
    release_memory()
    assert process.memory_info().rss < before - 150 * 2**20 and len(held) == 50
