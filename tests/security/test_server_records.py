"""A record of the server that is damaged or planted kills and trusts no other process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.home import Home
from flows.prefect_host import process_records, processes
from flows.prefect_host.server_life import _is_unused
from tests.flows.conftest import Groundup, free_port
from tests.security.test_server_impostor import Impostor

NOT_A_RECORD = "was not a record of groundup"


def sleeper(home: Path | None = None) -> subprocess.Popen[bytes]:
    """An unrelated program of this user. With a home, its environment has GROUNDUP_HOME."""
    environment = {"GROUNDUP_HOME": str(home)} if home else {}
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return subprocess.Popen(command, env=os.environ | environment)


@pytest.fixture
def groundup(tmp_path: Path) -> Iterator[Groundup]:
    new = Groundup(tmp_path / "home", free_port(), tmp_path)
    yield new
    new.run("down", check=False)


def empty(path: Path) -> None:
    path.write_text("")


def truncated(path: Path) -> None:
    path.write_text('{"pid": 12')


def huge(path: Path) -> None:
    path.write_text('{"pid": 1, "command": ["' + "x" * 10_000_000 + '"]}')


def deep(path: Path) -> None:
    path.write_text("[" * 30_000)


def binary(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def link(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path.parent / "elsewhere").write_text('{"pid": 1, "command": []}')
    path.symlink_to(path.parent / "elsewhere")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _with(**fields: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({"pid": 1, "command": []} | fields))

    return write


DAMAGES = {
    "empty": empty,
    "truncated": truncated,
    "huge": huge,
    "deep": deep,
    "binary": binary,
    "link": link,
    "pipe": pipe,
    "folder": folder,
    "no list": _with(command="x"),
    "no texts": _with(command=[1]),
    "no number": _with(pid="1"),
    "true": _with(pid=True),
    "negative": _with(pid=-1),
    "zero": _with(pid=0),
    "too large": _with(pid=10**30),
    "port": _with(port="4200"),
    "far port": _with(port=10**9),
    "host": _with(host=["x"]),
    "kept": _with(kept="no"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_set_aside_with_one_line(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    home.prefect.mkdir()
    path = home.pid_file("server")
    damage(path)
    assert processes.record_of(home, "server") == {}
    assert processes.alive(home, "server") is None
    assert processes.recorded(home) == set()
    (line,) = processes.recover(home)
    assert NOT_A_RECORD in line
    assert not os.path.lexists(path)
    assert len(list(home.prefect.glob("server.json.unusable-*"))) == 1, "nothing is lost"
    assert processes.recover(home) == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_server_whose_record_is_damaged_stays_and_does_not_fail(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    home.prefect.mkdir()
    damage(home.pid_file("server"))
    assert not _is_unused(home)
    assert os.path.lexists(home.pid_file("server"))


@pytest.mark.parametrize("process", processes.PROCESSES)
@pytest.mark.parametrize("has_our_home", [True, False])
def test_a_record_of_an_unrelated_process_stops_nothing(
    process: str, has_our_home: bool, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    home.prefect.mkdir()
    with sleeper(home.path if has_our_home else None) as victim:
        command = psutil.Process(victim.pid).cmdline()[1:]
        processes.write_record(home, process, {"pid": victim.pid, "command": command})
        assert processes.alive(home, process) is None
        assert not processes.stop(home, process)
        assert victim.poll() is None
        victim.kill()


def test_a_server_of_another_home_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(processes.MODULES, "server", "timeit")
    mine, other = Home(tmp_path / "mine"), Home(tmp_path / "other")
    for home in (mine, other):
        home.prefect.mkdir(parents=True)
    processes.spawn(mine, "server", ["timeit", "-n1", "-r1", "import time; time.sleep(600)"])
    try:
        processes.write_record(other, "server", processes.record_of(mine, "server"))
        assert processes.alive(other, "server") is None
        assert not processes.stop(other, "server")
        assert processes.alive(mine, "server")
    finally:
        processes.stop(mine, "server")


def test_a_record_is_written_through_no_link(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prefect.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    home.pid_file("server").symlink_to(victim)
    process_records.write(home, home.pid_file("server"), {"pid": 1, "command": []})
    assert victim.read_text() == "mine"


@pytest.mark.slow
def test_down_stops_what_runs_although_its_record_was_damaged(groundup: Groundup) -> None:
    home = Home(groundup.home)
    groundup.run("up")
    running = [processes.alive(home, process) for process in processes.PROCESSES]
    for process in processes.PROCESSES:
        truncated(home.pid_file(process))
    with sleeper(groundup.home) as victim:
        done = groundup.run("down")
        assert victim.poll() is None
        victim.kill()
    assert done.stderr.count(NOT_A_RECORD) == 2
    assert done.stdout == "stopped worker and server\n"
    assert not [one for one in running if one and one.is_running()]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [empty, link, _with(pid=os.getpid(), command=["x"], kept=True)])
def test_up_goes_on_with_what_runs_although_its_record_was_damaged(
    damage: Callable[[Path], None], groundup: Groundup
) -> None:
    home = Home(groundup.home)
    groundup.run("up")
    server = processes.alive(home, "server")
    assert server
    server.send_signal(signal.SIGSTOP)  # it looks at its record each second
    damage(home.pid_file("server"))
    found = processes.recover(home)
    server.send_signal(signal.SIGCONT)
    assert "was found and is recorded again" in found[0]
    assert groundup.url in groundup.run("up").stdout
    assert processes.alive(home, "server") == server


@pytest.mark.slow
def test_a_planted_address_does_not_get_the_secret(groundup: Groundup) -> None:
    """The address of a server is that of its process, whatever its record says."""
    home = Home(groundup.home)
    groundup.run("up")
    port = free_port()
    impostor = Impostor(port)
    try:
        record = processes.record_of(home, "server")
        planted = {"host": "127.0.0.1", "port": port, "url": None}
        processes.write_record(home, "server", record | planted)
        assert f"http://127.0.0.1:{groundup.port}/" in groundup.run("up").stdout
    finally:
        impostor.close()
    assert not impostor.asked
