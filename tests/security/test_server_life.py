"""A server ends once no run uses it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from flows.home import Home
from flows.prefect_host import server_life


@pytest.fixture
def served(tmp_path: Path) -> Home:
    """A home whose record names this process as its server."""
    home = Home(tmp_path)
    home.prefect.mkdir()
    record(home)
    return home


def record(home: Home, **more: object) -> None:
    home.pid_file("server").write_text(json.dumps({"pid": os.getpid(), "command": []} | more))


def test_a_server_stays_while_one_of_two_runs_still_uses_it(served: Home) -> None:
    users = served.prefect / "server.users"
    with users.open("a") as first, users.open("a") as second:
        fcntl.flock(first, fcntl.LOCK_SH)
        fcntl.flock(second, fcntl.LOCK_SH)
        first.close()
        assert not server_life._is_unused(served)
    assert server_life._is_unused(served)


def test_a_server_stays_while_it_is_started_or_stopped_and_when_up_has_kept_it(
    served: Home,
) -> None:
    with (served.prefect / "server.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not server_life._is_unused(served)
    record(served, kept=True)
    assert not server_life._is_unused(served)


def test_a_server_that_is_not_the_recorded_one_has_no_reason_to_stay(served: Home) -> None:
    record(served, pid=1, kept=True)
    assert server_life._is_unused(served)
    assert json.loads(served.pid_file("server").read_text())["pid"] == 1, "another's record"
