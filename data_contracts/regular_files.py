"""Files that somebody names, in a setting or on a command line, must be regular files.

Reading a pipe or a device may never end.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: It cannot be read, or it is something else; `strerror` says what.
    """
    check_regular(path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(handle, "rb")
    try:  # the path may lead to something else by now
        _check_mode(os.fstat(handle).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def check_regular(path: Path) -> None:
    """Check that `path` is a regular file, or a link to one, without opening it.

    Opening a device can have an effect.

    Raises:
        OSError: It is not a regular file.
    """
    _check_mode(path.stat().st_mode, path)


def _check_mode(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", str(path))
