"""Open a file by name, but never a pipe, a socket or a device: reading one could block or never end."""

from __future__ import annotations

import errno
import os
import stat


def regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Return a file descriptor of a regular file; usable as the `opener` of `open`.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # `open` refuses folders by itself
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return handle


def content(path: str | os.PathLike[str]) -> bytes:
    """Return all bytes of a regular file.

    Raises:
        OSError: as `regular`.
    """
    with open(path, "rb", opener=regular) as file:
        return file.read()
