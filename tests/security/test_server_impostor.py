"""Another user who takes the port of a server that has ended gets neither work nor secrets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from flows.home import Home
from flows.prefect_host import processes
from tests.flows.conftest import Groundup, free_port
from tests.security.another_user import NOBODY

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Groundup]:
    groundup = Groundup(tmp_path / "home", free_port(), tmp_path)
    try:
        groundup.run("up")
        yield groundup
    finally:
        groundup.run("down", check=False)


class Impostor:
    """Listens on a port as soon as it is free, and records the requests."""

    def __init__(self, port: int):
        self.asked: list[bytes] = []
        self._listening = self._take(port)
        Thread(target=self._answer, daemon=True).start()

    def _take(self, port: int) -> socket.socket:
        deadline = time.monotonic() + 300
        while True:
            try:
                return socket.create_server(("127.0.0.1", port))
            except OSError:
                assert time.monotonic() < deadline, "the port never became free"

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.asked.append(connection.recv(65536))

    def close(self) -> None:
        self._listening.shutdown(
            socket.SHUT_RDWR
        )  # ends the wait in accept, which would hold the port
        self._listening.close()


def test_the_worker_of_a_server_that_was_killed_asks_nobody_for_work(started: Groundup) -> None:
    home = Home(started.home)
    server, worker = processes.alive(home, "server"), processes.alive(home, "worker")
    assert server
    assert worker
    known = started.secret
    server.send_signal(signal.SIGKILL)
    impostor = Impostor(started.port)
    try:
        worker.wait(300)
        time.sleep(6)  # longer than a worker waits between two requests
        assert not [asked for asked in impostor.asked if b"get_scheduled" in asked]
    finally:
        impostor.close()
    started.run("up")
    assert started.secret != known, "what the impostor may have seen opens no server"
    assert processes.alive(home, "worker")


def test_up_sends_nothing_to_somebody_who_has_the_port(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path / "home", free_port(), tmp_path)
    impostor = Impostor(groundup.port)
    try:
        refused = groundup.run("up", check=False)
    finally:
        impostor.close()
    assert refused.returncode == 2
    assert "is taken by another program" in refused.stderr
    assert not impostor.asked


@as_root
def test_a_process_of_another_user_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    home.prefect.mkdir()
    monkeypatch.setitem(processes.MODULES, "server", "timeit")
    become_another = (
        f"import os, sys, time; sys.stdin.read(1); os.setresuid({NOBODY}, {NOBODY}, {NOBODY}); "
        "print(flush=True); time.sleep(600)"
    )
    command = ["-m", "timeit", "-n1", "-r1", become_another]
    with subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"GROUNDUP_HOME": str(home.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdin
            assert process.stdout
            processes.write_record(home, "server", {"pid": process.pid, "command": command})
            assert processes.alive(home, "server")
            process.stdin.close()
            assert process.stdout.read(1) == b"\n"
            assert not processes.alive(home, "server")
        finally:
            process.kill()
