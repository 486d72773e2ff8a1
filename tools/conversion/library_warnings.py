"""What image libraries say while they decode, so that it can be printed with the name of the file that it is about.

Pillow raises Python's warnings. libtiff, which is written in C, writes lines to file descriptor 2.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.decoding.image_file import TIFF


@contextmanager
def collected() -> Iterator[list[str]]:
    """Give a list that holds, after the block, each different warning of the block as one line."""
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lines
    lines += dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)


@contextmanager
def c_lines_as_warnings(data: bytes) -> Iterator[None]:
    """Turn the lines that C code writes while it decodes a TIFF into Python's warnings; do nothing for other bytes."""
    if not data.startswith(TIFF):
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file.read(4096).decode("utf-8", "replace").splitlines():
                warnings.warn(line.removeprefix("tempfile.tif: "), stacklevel=2)
