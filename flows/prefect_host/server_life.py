"""Ends a server that no run uses any more. A run killed with `kill -9` cannot stop its server."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

from flows.home import Home, current_home
from flows.prefect_host import process_records
from flows.prefect_host.server_locks import open_lock

POLL_S = 1.0
GRACE_S = 3.0  # the server waits for clients that hold a connection; not longer than this


def end_when_unused() -> None:
    """Start a thread that ends this server once no run uses it, unless `groundup up` keeps it."""
    threading.Thread(target=_watch, args=(current_home(),), name="life", daemon=True).start()


def _watch(home: Home) -> None:
    while not _is_unused(home):
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(0)


def _is_unused(home: Home) -> bool:
    """Return whether this server has no users. False while another process starts or stops one.

    A server whose record cannot be read stays: the next command finds it by its command line.
    """
    path = home.pid_file("server")
    try:
        with _locked(home.prefect / "server.lock"), _locked(home.prefect / "server.users"):
            if not os.path.lexists(path):
                # The process that started this server was killed before it could write the record.
                return True
            record = process_records.read(path)
            if not record:
                return False
            is_recorded = record["pid"] == os.getpid()
            if not is_recorded:  # nobody would find this server
                return True
            if record.get("kept"):
                return False
            path.unlink()
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:  # the home was deleted or moved
        return True


def _locked(path: Path) -> TextIO:
    """Open a file and lock it until it is closed.

    Raises:
        BlockingIOError: Another process holds a lock.
    """
    file = open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file
