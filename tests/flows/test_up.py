"""`groundup up`: what it finds, what it leaves as it is, and how it says no."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

import psutil
import pytest
from typer.testing import CliRunner

from data_contracts import GroundupError
from flows.cli import commands as cli
from flows.home import Home, current_home
from flows.prefect_host import api_secret, processes, server, server_address
from flows.prefect_host.server_address import Address
from tests.flows.conftest import REPOSITORY, Groundup, free_port

LOST = """
import time
from flows.home import current_home
from flows.prefect_host.server import running_server
with running_server(current_home(), "prefect"):
    from prefect import flow
    @flow(name="crawl")
    def stage():
        print("running", flush=True)
        time.sleep(600)
    @flow(name="build-llm")
    def whole():
        stage()
    whole()
"""

# What has not changed is not written again. The worker's polls change a deployment, too, so only
# the requests count.
AGAIN = """
from prefect.client.orchestration import SyncPrefectClient

def refuse(*given, **settings):
    raise SystemExit(f"a deployment is written again: {given[1:]} {settings}")

SyncPrefectClient.update_deployment = SyncPrefectClient.create_deployment = refuse
SyncPrefectClient.update_work_pool = refuse
from flows.prefect_host.deployments import deploy
deploy(whole_server=True)
print("nothing to write")
"""


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What these tests choose of a server stays theirs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "GROUNDUP_")) and "proxy" not in name.lower()
    }
    with mock.patch.dict(os.environ, kept, clear=True):
        yield


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def take_timeit_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program that is quick to start stand for the server and the worker."""
    for process in processes.PROCESSES:
        monkeypatch.setitem(processes.MODULES, process, "timeit")


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
def test_up_again_keeps_what_a_person_changed_repairs_what_the_code_determines_and_tells_lost_runs(
    tmp_path: Path,
) -> None:
    groundup = Groundup(tmp_path, free_port())
    groundup.set_up()
    killed = subprocess.Popen(
        [sys.executable, "-c", LOST],
        env=groundup.environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert killed.stdout
        assert killed.stdout.readline() == "running\n"
        killed.kill()
        killed.wait()
        groundup.run("up")
        begun = groundup.api("/flow_runs/filter", flow_runs={"start_time": {"is_null_": False}})
        assert [run["state_name"] for run in begun] == ["Crashed", "Crashed"], (
            "the flow and its stage"
        )

        nightly = groundup.deployment("scheduled-eval")
        (schedule,) = nightly["schedules"]
        path = f"/deployments/{nightly['id']}"
        groundup.api(f"{path}/schedules/{schedule['id']}", "PATCH", active=False)
        groundup.api(path, "PATCH", parameters={"name": "mine"}, entrypoint="flows/gone.py:gone")
        groundup.run("up")
        found = groundup.deployment("scheduled-eval")
        assert found["entrypoint"] == nightly["entrypoint"]
        assert found["parameters"] == {"name": "mine"}
        assert [(one["id"], one["active"]) for one in found["schedules"]] == [
            (schedule["id"], False)
        ]
        again = subprocess.run(
            [sys.executable, "-c", AGAIN],
            env=groundup.environment
            | {
                "PREFECT_API_URL": f"{groundup.url}/api",
                "PREFECT_API_AUTH_STRING": groundup.secret,
            },
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (again.returncode, again.stdout) == (0, "nothing to write\n"), again.stderr
    finally:
        killed.kill()
        groundup.run("down")


def test_loopback_is_never_asked_through_a_proxy(home: Home) -> None:
    with HTTPServer(("127.0.0.1", 0), Healthy) as listening:
        Thread(target=listening.serve_forever, args=[0.01], daemon=True).start()
        os.environ |= {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "intranet"}
        os.environ |= server.environment(home, Address(port=listening.server_port))
        assert server.is_up()
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "intranet,127.0.0.1,localhost"
        del os.environ["PREFECT_API_URL"]
        assert server.environment(home)["no_proxy"] == os.environ["no_proxy"], "said once"
        listening.shutdown()


def test_without_a_proxy_none_is_excepted(home: Home) -> None:
    with mock.patch("urllib.request.getproxies", dict):
        assert not [name for name in server.environment(home) if "proxy" in name.lower()]


def test_a_prefect_of_ones_own_may_end_in_a_slash_and_must_answer(home: Home) -> None:
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api/"
    with pytest.raises(GroundupError, match="/api: does not answer"):
        server.up(home)


def test_a_port_that_none_is_says_so_before_anything_starts() -> None:
    for port in ("99999", "-1", "0"):
        assert CliRunner().invoke(cli.app, ["up", "--port", port]).exit_code == 2


def test_a_port_kept_for_root_is_not_called_taken(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(probe: socket.socket, address: tuple[str, int]) -> None:
        if address[1] == 80:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    monkeypatch.setattr(server_address, "any_port", lambda: 4321)
    with pytest.raises(
        GroundupError, match=r"port 80: is kept for root by the system\n.*--port 4321"
    ):
        server.up(home, 80)


def test_a_port_that_is_taken_is_reported_with_one_that_is_free(home: Home) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(GroundupError, match="is taken by another program") as error,
    ):
        server.up(home, listening.getsockname()[1])
    server_address.listen(Address(port=int(error.value.fix.split()[-1])))[0].close()


def test_a_port_that_somebody_took_in_advance_is_ours_or_refused(home: Home) -> None:
    with socket.socket() as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        theirs.bind(("127.0.0.1", 0))
        port = theirs.getsockname()[1]
        ours, _ = server_address.listen(Address(port=port))
        with ours, pytest.raises(OSError, match="Address already in use"):
            theirs.listen()


def test_a_new_server_has_a_new_secret_and_no_worker_of_the_last(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = api_secret.read_or_make(home)
    monkeypatch.setitem(processes.MODULES, "server", "this")
    monkeypatch.setitem(processes.MODULES, "worker", "timeit")
    processes.spawn(home, "server", ["this"])
    processes.spawn(home, "worker", ["timeit", "-n1", "-r1", "import time; time.sleep(600)"])
    worker = processes.alive(home, "worker")
    psutil.Process(processes.record_of(home, "server")["pid"]).wait(300)
    asked: dict[str, str] = {}

    def spawn(
        home: Home, process: str, command: list[str], handed_over: list[int], **_: Any
    ) -> None:
        asked["secret"] = os.environ["PREFECT_SERVER_API_AUTH_STRING"]
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "spawn", spawn)
    with pytest.raises(KeyboardInterrupt):
        server.up(home, free_port())
    assert worker
    assert not worker.is_running()
    assert asked["secret"] == api_secret.read_or_make(home) != before


def test_a_home_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        GroundupError, match=r"the folder .*/file/home: cannot be written: Not a directory"
    ):
        server.up(Home(tmp_path / "file" / "home"))


def test_a_home_is_found_from_a_tilde_and_an_empty_one_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROUNDUP_HOME", "~/x")
    assert current_home().path == Path.home() / "x"
    monkeypatch.setenv("GROUNDUP_HOME", "")
    assert current_home().path == Path.cwd() / ".groundup"


@pytest.mark.parametrize(
    "written", ["", "[]", '{"pid": "x"}', '{"pid": 1}', '{"pid": 1, "command": 2}']
)
def test_a_record_of_a_process_that_is_damaged_is_none(written: str, home: Home) -> None:
    home.prefect.mkdir(parents=True)
    home.pid_file("server").write_text(written)
    assert server.down(home) == "nothing was up"


def test_a_home_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(GroundupError, match=r"home: is a file, and the home is a folder"):
        server.up(Home(tmp_path / "home"))


def test_down_where_nothing_was_up_makes_no_folder(home: Home) -> None:
    assert server.down(home) == "nothing was up"
    assert not home.path.exists()


def test_an_interrupted_up_stops_what_it_started(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[psutil.Process] = []
    take_timeit_for_ours(monkeypatch)

    def interrupted(home: Home, *_: object) -> str:
        processes.spawn(home, "server", ["timeit", "-n1", "-r1", "import time; time.sleep(600)"])
        started.append(processes.alive(home, "server"))
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.up(home)
    assert not started[0].is_running()


def test_a_process_is_known_by_its_command_whatever_the_clock_says(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.prefect.mkdir(parents=True)
    take_timeit_for_ours(monkeypatch)
    processes.spawn(home, "server", ["timeit", "-n1", "-r1", "import time; time.sleep(600)"])
    record = processes.record_of(home, "server")
    assert processes.alive(home, "server")
    processes.write_record(home, "server", record | {"command": ["-m", "something.else"]})
    assert not processes.alive(home, "server")
    processes.write_record(home, "server", record)
    assert processes.stop(home, "server")


def test_the_log_of_a_server_has_what_the_terminal_of_a_run_leaves_out(home: Home) -> None:
    home.prefect.mkdir(parents=True)
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    processes.spawn(
        home,
        "server",
        [
            "timeit",
            "-n1",
            "-r1",
            "import os; print(os.environ.get('PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL'))",
        ],
    )
    psutil.Process(processes.record_of(home, "server")["pid"]).wait(300)
    assert home.log("server").read_text().startswith("None\n")
