"""The server of a run ends with the last run that uses it, however that ended: `kill -9` leaves no time to stop a server."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

from flows.home import Home, home

EVERY_S = 1.0
GENTLY_S = 3.0


def end_when_unused() -> None:
    """Watch, in a thread of the server, whether a run still uses it or `up` has kept it; without either, end the process."""
    threading.Thread(target=_watch, args=(home(),), name="life", daemon=True).start()


def _watch(at: Home) -> None:
    while not _is_unused(at):
        time.sleep(EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GENTLY_S)  # it waits for clients that hold a connection
    os._exit(0)


def _is_unused(at: Home) -> bool:
    """Whether this process serves nobody. While another starts or stops a server, the answer has to wait."""
    record = at.pid_file("server")
    try:
        with _free(at.prefect / "server.lock"), _free(at.prefect / "server.users"):
            written = json.loads(record.read_text("utf-8"))
            if written["pid"] != os.getpid():  # nobody would find this server
                return True
            if written.get("kept"):
                return False
            record.unlink()
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:  # whoever started it was killed before it could write the record
        return True


def _free(path: Path) -> TextIO:
    """The file, locked by nobody but its holder. Raises BlockingIOError if another has it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file
