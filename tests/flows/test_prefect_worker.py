"""The worker knows when its server has ended, whatever the system offers to find out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from flows.prefect_host import prefect_worker


def refused(process: int) -> int:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("system", ["its own", "none", "refused"])
def test_the_end_of_a_process_is_noticed_even_if_nobody_has_waited_for_it(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "none":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif system == "refused":
        monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        assert server.stdin
        server.stdin.close()
        prefect_worker._wait_for_end_of(server.pid)
        assert os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "it has ended"


@pytest.mark.timeout(300)
def test_a_process_that_is_gone_is_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as server:
        pass
    prefect_worker._wait_for_end_of(server.pid)
