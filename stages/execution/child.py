"""Ends child processes together with the process that started them."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent ends.

    Does nothing except on Linux. On other systems the child has to watch a pipe.

    Args:
        parent: The process id of the parent, if known. If that process has ended already, this one
            ends at once.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):  # the C library has no prctl
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def kill_with_descendants(pid: int) -> None:
    """Kill a process and all its descendants, in whatever process groups and sessions they are."""
    import psutil

    try:
        top = psutil.Process(pid)
        family = [*top.children(recursive=True), top]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=1)
