"""Runs Prefect's worker and ends it with its server.

Usage: `python -m flows.prefect_host.prefect_worker POOL NAME LIMIT [SERVER_PID]`

A worker runs whatever the server on its port asks for. Once our server has ended, any user may take
the port and ask for any command. So the worker and its runs end as soon as their server does, and
no request chooses the command of a run.
"""

from __future__ import annotations

import os
import runpy
import select
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import psutil

from flows.prefect_host.job_template import closed

POLL_S = 0.05


def main() -> None:
    """Run the worker until it is stopped or its server ends."""
    pool, name, limit, *server = sys.argv[1:]
    if server:
        server_pid = int(server[0])
        watch = threading.Thread(target=_end_with, args=(server_pid,), name="server", daemon=True)
        watch.start()
    _close_templates()
    options = ["--pool", pool, "--name", name, "--type", "process", "--limit", limit]
    sys.argv = ["prefect", "worker", "start", *options]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _close_templates() -> None:
    """Let no request choose a command, folder or environment, whatever the pool's template says.

    `groundup up` closes the template of the pool. Somebody may open or empty it afterwards, and
    Prefect's worker takes its own open template for one that is empty.
    """
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

    worker: Any = ProcessWorker
    configuration: Any = ProcessJobConfiguration
    default_template = worker.get_default_base_job_template
    filled_in = configuration.from_template_and_values.__func__

    async def closed_and_filled_in(
        cls: Any, base_job_template: dict[str, Any], values: dict[str, Any], client: Any = None
    ) -> Any:
        return await filled_in(cls, closed(base_job_template), values, client=client)

    worker.get_default_base_job_template = staticmethod(lambda: closed(default_template()))
    configuration.from_template_and_values = classmethod(closed_and_filled_in)


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
