"""Child processes end with the process that started them, however that ended."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None = None) -> None:
    """Called in a child: the kernel kills it when its parent is gone. Linux alone can; elsewhere a pipe has to be watched.

    parent: its process id, where the child knows it; one that is gone already is noticed, too.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def kill_with_descendants(pid: int) -> None:
    """End a process, all that it has started and all that those have, whichever groups and sessions they made."""
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
