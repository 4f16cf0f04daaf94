"""File locks around the home's server: who starts or stops it, and who uses it.

The system releases the locks when the process that holds them ends, however it ends.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from flows import private_home
from flows.home import Home, writing


@contextmanager
def starting_or_stopping(at: Home) -> Iterator[None]:
    """Let one process at a time look for a server, start one or stop it."""
    with writing(at):
        private_home.prepare(at)
        lock = (at.prefect / "server.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def users_file(at: Home) -> TextIO:
    """Open the file on which every run from the shell holds a shared lock."""
    with writing(at):
        private_home.prepare(at)
        return (at.prefect / "server.users").open("a")


def is_in_use(at: Home) -> bool:
    """Return whether a run from the shell uses the server."""
    with users_file(at) as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
