"""`python -m flows.prefect_host.prefect_worker POOL NAME AT_ONCE [SERVER]`: Prefect's worker, which ends with its server.

A worker does what the server on its port asks it to do. Once our server has ended, any user may take the port, and could ask
for any command. So the worker and its runs end in the same moment; SERVER is the process id of the server.
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

EVERY_S = 0.05


def main() -> None:
    """The worker, until it is stopped or its server ends."""
    pool, name, at_once, *server = sys.argv[1:]
    if server:
        threading.Thread(
            target=_end_with, args=(int(server[0]),), name="server", daemon=True
        ).start()
    sys.argv = [
        "prefect",
        "worker",
        "start",
        "--pool",
        pool,
        "--name",
        name,
        "--type",
        "process",
        "--limit",
        at_once,
    ]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with(server: int) -> None:
    _wait_for_end_of(server)
    with suppress(psutil.NoSuchProcess):
        for run in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                run.terminate()  # it stops what it started, and says that it was stopped
    os._exit(1)


def _wait_for_end_of(process: int) -> None:
    """Returns as soon as the process has ended, even if its parent has not waited for it."""
    try:
        select.select([os.pidfd_open(process)], [], [])
        return
    except ProcessLookupError:
        return
    except (
        AttributeError,
        OSError,
    ):  # macOS has no pidfd_open; old kernels and some containers refuse it
        pass
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
