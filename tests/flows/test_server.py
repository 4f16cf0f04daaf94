"""The server of a run: shared by runs that overlap, and kept by `groundup up`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import REPOSITORY, Groundup, free_port

pytestmark = pytest.mark.slow

RUN = """
import sys
from flows.home import current_home
from flows.prefect_host.server import is_up, running_server
with running_server(current_home(), "prefect") as started_here:
    print(started_here, flush=True)
    sys.stdin.readline()
    print(is_up(), flush=True)
"""


class Run:
    """A process that needs the server until it is asked to leave."""

    def __init__(self, groundup: Groundup):
        groundup.set_up()
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            env=groundup.environment,
            cwd=REPOSITORY,
            stdin=pipe,
            stdout=pipe,
            text=True,
        )

    def started_the_server(self) -> bool:
        assert self.process.stdout
        return self.process.stdout.readline() == "True\n"

    def leave(self) -> bool:
        """Whether the server was up until then."""
        output, _ = self.process.communicate("\n", timeout=120)
        assert self.process.returncode == 0
        return output == "True\n"


@pytest.fixture
def groundup(tmp_path: Path) -> Iterator[Groundup]:
    new = Groundup(tmp_path, free_port())
    yield new
    new.run("down")


def test_runs_that_overlap_share_one_server_and_the_last_stops_it(groundup: Groundup) -> None:
    runs = [Run(groundup), Run(groundup)]
    started = [run.started_the_server() for run in runs]
    assert sorted(started) == [False, True], "one of them started the server, the other joined"
    first = started.index(True)
    assert runs[first].leave()
    assert runs[1 - first].leave()
    assert groundup.run("down").stdout == "nothing was up\n"


def test_up_takes_over_the_server_of_a_run_and_down_leaves_it_to_one(groundup: Groundup) -> None:
    run = Run(groundup)
    assert run.started_the_server()
    assert groundup.url in groundup.run("up").stdout
    assert run.leave()
    assert (
        "groundup is up on port"
        in groundup.run("up", "--port", str(free_port()), check=False).stderr
    )
    assert (
        "the worker that runs does 1 at once, not 3"
        in groundup.run("up", "--at-once", "3", check=False).stderr
    )
    groundup.environment["GROUNDUP_STORE"] = "/elsewhere"
    assert "the worker that runs works on the store" in groundup.run("up", check=False).stderr
    assert not (joined := Run(groundup)).started_the_server()
    assert (
        groundup.run("down").stdout
        == "stopped worker; a run still uses the server, and will stop it\n"
    )
    assert joined.leave()
    assert groundup.run("down").stdout == "nothing was up\n"
