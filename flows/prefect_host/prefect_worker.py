"""Runs Prefect's worker and ends it with its server.

Usage: `python -m flows.prefect_host.prefect_worker POOL NAME LIMIT [SERVER_PID]`

A worker runs whatever the server on its port asks for. Once our server has ended, any user may take
the port and ask for any command. So the worker and its runs end as soon as their server does.
"""

from __future__ import annotations

import os
import runpy
import select
import sys
import threading
import time
from contextlib import suppress

import psutil

POLL_S = 0.05


def main() -> None:
    """Run the worker until it is stopped or its server ends."""
    pool, name, limit, *server = sys.argv[1:]
    if server:
        server_pid = int(server[0])
        watch = threading.Thread(target=_end_with, args=(server_pid,), name="server", daemon=True)
        watch.start()
    options = ["--pool", pool, "--name", name, "--type", "process", "--limit", limit]
    sys.argv = ["prefect", "worker", "start", *options]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with(server_pid: int) -> None:
    _wait_for_end_of(server_pid)
    with suppress(psutil.NoSuchProcess):
        for run in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                # A run stops what it started itself, and reports that it was stopped.
                run.terminate()
    os._exit(1)


def _wait_for_end_of(pid: int) -> None:
    """Return as soon as a process has ended, even if its parent has not waited for it."""
    try:
        select.select([os.pidfd_open(pid)], [], [])
        return
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        pass  # macOS has no pidfd_open; old kernels and some containers refuse it
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(POLL_S)


if __name__ == "__main__":
    main()
