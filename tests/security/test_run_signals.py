"""Every way to end a run or `groundup up` ends the server, too, and explains how to continue."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import REPOSITORY, Groundup, free_port
from tests.security.interrupted import (
    GO_ON,
    TIMEOUT_S,
    assert_gone,
    every_signal,
    is_listening,
    wait_until,
)


@every_signal
@pytest.mark.slow
def test_a_run_that_is_ended_takes_its_server_along_and_says_how_to_go_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    groundup = Groundup(tmp_path, free_port())
    with groundup.started(*endless_run()) as run:
        assert run.stdout
        assert any("✓ crawl" in line for line in run.stdout)
        family = [one.pid for one in psutil.Process(run.pid).children(recursive=True)]
        run.send_signal(number)
        output = run.stdout.read()
        run.wait(TIMEOUT_S)
    assert run.returncode == 128 + number, output
    assert output.splitlines()[-1] == GO_ON
    assert "Traceback" not in output
    assert family, "the server, at least"
    assert_gone(family)
    assert not is_listening(groundup.port)


@pytest.mark.slow
def test_a_server_does_not_outlive_the_run_that_was_killed(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path, free_port())
    with groundup.started(*endless_run()) as run:
        assert run.stdout
        assert any("✓ crawl" in line for line in run.stdout)
        family = [one.pid for one in psutil.Process(run.pid).children(recursive=True)]
        run.kill()
        run.stdout.read()
        run.wait()
    assert_gone(family)
    assert not is_listening(groundup.port)


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_the_run(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path, free_port())
    groundup.set_up()
    command = [str(Path(sys.executable).with_name("groundup")), *endless_run()]
    run, terminal = pty.fork()
    if run == 0:
        os.chdir(REPOSITORY)
        os.execve(command[0], command, groundup.environment)
    try:
        record = tmp_path / "prefect" / "server.json"
        wait_until(lambda: record.is_file() and is_listening(groundup.port), terminal)
        family = [one.pid for one in psutil.Process(run).children(recursive=True)]
    finally:
        os.close(terminal)
    status = wait_until(lambda: os.waitpid(run, os.WNOHANG))[1]
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert_gone(family)


@pytest.mark.slow
def test_an_up_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path, free_port())
    with groundup.started("up") as up:
        record = tmp_path / "prefect" / "server.json"
        wait_until(record.is_file)
        server = json.loads(record.read_text())["pid"]
        up.terminate()
        output = up.communicate(timeout=TIMEOUT_S)[0]
    assert up.returncode == 143
    assert output.splitlines()[-1] == GO_ON
    assert_gone([server])


def endless_run() -> list[str]:
    changes = [
        "crawl.sources=[{kind: files, paths: ['*.md']}]",
        "pretrain.training.duration=100000",
    ]
    command = ["run", "--recipe", "own"]
    for change in changes:
        command += ["--set", change]
    return command
