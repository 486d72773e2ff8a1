"""Opens files that somebody named, or that lie in a folder: a pipe would hold us up, and a device may never end."""

from __future__ import annotations

import errno
import os
import stat


def regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """A handle of a regular file; also an `opener` for `open`.

    Raises:
        OSError: it cannot be opened, or is none.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # `open` refuses folders by itself
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return handle


def content(path: str | os.PathLike[str]) -> bytes:
    """The whole of a regular file."""
    with open(path, "rb", opener=regular) as file:
        return file.read()
