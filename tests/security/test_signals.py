"""Every way to end a command ends all of its processes.

It also explains how to continue, and gives the exit status that shells expect.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import REPOSITORY
from tests.security.interrupted import (
    GO_ON,
    TIMEOUT_S,
    appearing,
    assert_gone,
    every_signal,
    own_command,
)

SHARDS = """
from pathlib import Path
from stages.execution.processes import local
from stages.execution.shards import map_shards

def work(number):
    Path(f"{number}.working").write_text(str(os.getpid()))
    time.sleep(600)

def command():
    print("begun", flush=True)
    for _ in map_shards(work, range(4), local(2)):
        pass
"""
DEAF = """
import subprocess

def command():
    child = None
    while True:
        try:
            if child is None:
                child = subprocess.Popen(["sleep", "600"], start_new_session=True)
                print(child.pid, flush=True)
            time.sleep(600)
        except BaseException:
            pass
"""
PATIENT = """
def command():
    print("begun", flush=True)
    sys.stdin.readline()
    print("done", flush=True)
"""
LEFT = """
import subprocess

def command():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(600)
"""
BUSY = """
import itertools

def command():
    print("begun", flush=True)
    sum(itertools.repeat(1, 300_000_000))  # one step of Python: no handler runs meanwhile
    time.sleep(600)
"""
SLOW_TO_END = """
import atexit

def command():
    atexit.register(time.sleep, 1)
    print("begun", flush=True)
    time.sleep(600)
"""
RANKS = """
import os, time
from pathlib import Path
from types import SimpleNamespace
import stages

def run(config, *, out, report, **inputs):
    (Path(out.folder) / f"{os.environ['RANK']}.rank").write_text(str(os.getpid()))
    time.sleep(600)

stages.stage = lambda name: SimpleNamespace(
    name=name, config_class=SimpleNamespace(parse=lambda *_: None), function=run
)
"""
TORCHRUN = """
from pathlib import Path
from types import SimpleNamespace
from data_contracts import Draft
from stages.lm.parallel import launch
from stages.report import Report

def command():
    draft = Draft.in_folder("checkpoint", Path("draft").resolve())
    draft.scratch.mkdir(parents=True, exist_ok=True)
    config = SimpleNamespace(compute=SimpleNamespace(devices=2), model_dump=lambda mode: {})
    launch._torchrun("pretrain", config, {}, draft, Report())
"""


@every_signal
@pytest.mark.slow
def test_workers_of_a_stage_end_with_it(number: signal.Signals, tmp_path: Path) -> None:
    with own_command(tmp_path, SHARDS) as command:
        workers = [int(path.read_text()) for path in appearing(tmp_path, "*.working", 2)]
        command.send_signal(number)
        stderr = command.communicate(timeout=TIMEOUT_S)[1]
    assert command.returncode == 128 + number
    assert stderr.splitlines()[-1] == GO_ON
    assert "Traceback" not in stderr
    assert_gone(workers)


@pytest.mark.slow
def test_ctrl_c_reaches_the_whole_group_and_is_stderr_once(tmp_path: Path) -> None:
    with own_command(tmp_path, SHARDS, start_new_session=True) as command:
        workers = [int(path.read_text()) for path in appearing(tmp_path, "*.working", 2)]
        os.killpg(command.pid, signal.SIGINT)
        stderr = command.communicate(timeout=TIMEOUT_S)[1]
    assert stderr == f"{GO_ON}\n"
    assert command.returncode == 130
    assert_gone(workers)


@pytest.mark.slow
def test_workers_end_when_their_stage_is_killed(tmp_path: Path) -> None:
    with own_command(tmp_path, SHARDS) as command:
        workers = [int(path.read_text()) for path in appearing(tmp_path, "*.working", 2)]
        command.kill()
        command.communicate(timeout=TIMEOUT_S)
    assert_gone(workers)


@every_signal
@pytest.mark.slow
def test_what_does_not_heed_a_signal_is_ended_with_its_children(
    number: signal.Signals, tmp_path: Path
) -> None:
    assert_ends_with_its_child(DEAF, number, tmp_path, GROUNDUP_GRACE_S="0.5")


@every_signal
@pytest.mark.slow
def test_a_child_that_nobody_ended_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    assert_ends_with_its_child(LEFT, number, tmp_path)


@every_signal
@pytest.mark.slow
@pytest.mark.parametrize("script", [DEAF, LEFT], ids=["deaf", "left"])
def test_a_home_that_is_no_path_keeps_no_child_alive(
    number: signal.Signals, script: str, tmp_path: Path
) -> None:
    home = "~nobody-of-this-name/x"
    assert_ends_with_its_child(script, number, tmp_path, GROUNDUP_GRACE_S="0.5", GROUNDUP_HOME=home)


def assert_ends_with_its_child(
    script: str, number: signal.Signals, folder: Path, **settings: str
) -> None:
    """Send a signal to a command that prints the id of its child."""
    with own_command(folder, script, **settings) as command:
        assert command.stdout
        child = int(command.stdout.readline())
        command.send_signal(number)
        stderr = command.communicate(timeout=TIMEOUT_S)[1]
    assert (command.returncode, stderr) == (128 + number, f"{GO_ON}\n")
    assert_gone([child])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_first_of_several_signals_decides_the_status(
    number: signal.Signals, tmp_path: Path
) -> None:
    """A system that shuts down sends SIGTERM, and a terminal that it closes SIGHUP."""
    with own_command(tmp_path, SLOW_TO_END) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        command.send_signal(number)
        deadline = time.monotonic() + TIMEOUT_S
        while command.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            command.send_signal(signal.SIGHUP)
        stderr = command.communicate(timeout=TIMEOUT_S)[1]
    assert (command.returncode, stderr) == (128 + number, f"{GO_ON}\n")


@pytest.mark.slow
def test_the_first_signal_decides_if_several_come_before_any_is_handled(tmp_path: Path) -> None:
    """Python handles those that have come meanwhile in the order of their numbers."""
    with own_command(tmp_path, BUSY) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            command.send_signal(number)
            time.sleep(0.1)
        stderr = command.communicate(timeout=TIMEOUT_S)[1]
    assert (command.returncode, stderr) == (143, f"{GO_ON}\n")


@pytest.mark.slow
def test_ranks_that_do_not_stop_are_ended(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RANKS)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    with own_command(tmp_path, TORCHRUN, PYTHONPATH=path, GROUNDUP_GRACE_S="0.5") as command:
        ranks = [int(path.read_text()) for path in appearing(tmp_path, "draft/*.rank", 2)]
        family = [one.pid for one in psutil.Process(command.pid).children(recursive=True)]
        command.terminate()
        stderr = command.communicate(timeout=TIMEOUT_S)[1]
    assert command.returncode == 143, stderr
    assert set(ranks) <= set(family)
    assert_gone(family)


@pytest.mark.slow
def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    with own_command(tmp_path, PATIENT, before=("nohup",)) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        command.send_signal(signal.SIGHUP)
        stdout = command.communicate("go on\n", timeout=TIMEOUT_S)[0]
    assert (command.returncode, stdout) == (0, "done\n")


@pytest.mark.slow
def test_a_forked_child_has_the_signals_of_an_ordinary_process(tmp_path: Path) -> None:
    body = """
def command():
    child = os.fork()
    if child == 0:
        print("begun", flush=True)
        time.sleep(600)
    time.sleep(0.1)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
    with own_command(tmp_path, body) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        (child,) = psutil.Process(command.pid).children()
        child.terminate()
        stdout = command.communicate(timeout=TIMEOUT_S)[0]
    assert (command.returncode, stdout) == (0, f"{-signal.SIGTERM}\n"), "the parent was not asked"
