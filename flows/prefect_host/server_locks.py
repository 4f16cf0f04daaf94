"""File locks around the home's server: who starts or stops it, and who uses it.

The system releases the locks when the process that holds them ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from flows.home import Home, writing


def open_lock(path: Path) -> TextIO:
    """Open a file to be locked, and create it if it is missing. A link is an error."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags, 0o600), "a")


@contextmanager
def starting_or_stopping(home: Home) -> Iterator[None]:
    """Let one process at a time look for a server, start one or stop it."""
    with writing(home):
        lock = open_lock(home.prefect / "server.lock")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def users_file(home: Home) -> TextIO:
    """Open the file on which every run from the shell holds a shared lock."""
    with writing(home):
        return open_lock(home.prefect / "server.users")


def is_in_use(home: Home) -> bool:
    """Return whether a run from the shell uses the server."""
    with users_file(home) as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
