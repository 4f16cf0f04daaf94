"""A signal that reaches `groundup up` at any moment leaves no process behind and is answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.home import Home
from flows.prefect_host import processes
from flows.prefect_host.uninterrupted import uninterrupted
from tests.flows.conftest import REPOSITORY, Groundup, free_port
from tests.security.interrupted import GO_ON, TIMEOUT_S, every_signal, is_listening, wait_until

# The signal comes while a module is imported, long before a command begins.
EARLY = """
import os, sys
class Killer:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Killer())
"""
# Signals around the start of a child and in the middle of the cleaning up that follows.
AT_A_CHILD = """
import os, subprocess, sys
from pathlib import Path
if Path(sys.argv[0]).name == "groundup":
    real, started = subprocess._fork_exec, 0
    def fork_exec(*given, **more):
        global started
        pid = real(*given, **more)
        arguments = [os.fsdecode(one) for one in given[0]]
        if any("flows.prefect_host.{module}" in one for one in arguments):
            os.kill(os.getpid(), {number})
        return pid
    subprocess._fork_exec = fork_exec
"""
WHEN_KEPT = """
import os, sys
from pathlib import Path
if Path(sys.argv[0]).name == "groundup":
    class Patcher:
        def find_spec(self, name, path=None, target=None):
            if name == "flows.prefect_host.deployments":
                sys.meta_path.remove(self)
                patch()
    def patch():
        import psutil
        from flows.prefect_host import processes, sign_in
        waited, keep = psutil.wait_procs, processes.keep
        def wait_procs(*given, **more):
            os.kill(os.getpid(), {number})
            return waited(*given, **more)
        psutil.wait_procs = wait_procs
        def new_keep(at, is_kept):
            keep(at, is_kept)
            if is_kept:
                os.kill(os.getpid(), {number})
        processes.keep = new_keep
    sys.meta_path.insert(0, Patcher())
"""


def interrupted_up(
    folder: Path, customized: str, makes_home: bool = False
) -> tuple[Groundup, int, str]:
    """Run `groundup up` with code that sends it signals; return its status and its output."""
    groundup = Groundup(folder / "home", free_port(), folder, makes_database=makes_home)
    (folder / "custom").mkdir()
    (folder / "custom" / "sitecustomize.py").write_text(customized)
    paths = os.pathsep.join([str(folder / "custom"), str(REPOSITORY)])
    groundup.environment["PYTHONPATH"] = paths
    done = groundup.run("up", check=False, timeout=TIMEOUT_S)
    return groundup, done.returncode, done.stdout + done.stderr


def processes_of(groundup: Groundup) -> list[psutil.Process]:
    """Every process that has the home in its environment: servers, workers and their children."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("GROUNDUP_HOME") == str(groundup.home)
        except (psutil.Error, OSError):
            continue
        if is_ours and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def assert_nothing_is_left(groundup: Groundup) -> None:
    wait_until(lambda: not processes_of(groundup))
    assert not is_listening(groundup.port)


@every_signal
@pytest.mark.parametrize("module", ["typer", "flows.recipe", "flows.cli.artifact_commands"])
def test_a_signal_before_the_command_begins_ends_it_in_a_line(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    customized = EARLY.format(module=module, number=int(number))
    groundup, status, output = interrupted_up(tmp_path, customized, makes_home=True)
    assert (status, output) == (128 + number, f"{GO_ON}\n")
    assert not groundup.home.exists()


def test_a_signal_that_nohup_ignores_stays_ignored_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        EARLY.format(module="typer", number=int(signal.SIGHUP))
    )
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    command = str(Path(sys.executable).with_name("groundup"))
    done = subprocess.run(
        ["nohup", command, "--version"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("groundup ")


@every_signal
@pytest.mark.slow
@pytest.mark.parametrize("module", ["prefect_server", "prefect_worker"])
def test_a_signal_while_a_child_starts_leaves_none(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    groundup, status, output = interrupted_up(
        tmp_path, AT_A_CHILD.format(module=module, number=int(number))
    )
    assert status == 128 + number, output
    assert output.splitlines()[-1] == GO_ON
    assert "Traceback" not in output
    assert_nothing_is_left(groundup)


@every_signal
@pytest.mark.slow
def test_signals_after_all_is_up_and_while_it_is_stopped_leave_nothing(
    number: signal.Signals, tmp_path: Path
) -> None:
    groundup, status, output = interrupted_up(tmp_path, WHEN_KEPT.format(number=int(number)))
    assert status == 128 + number, output
    assert output.splitlines()[-1] == GO_ON
    assert_nothing_is_left(groundup)
    assert not [name for name in processes.PROCESSES if Home(groundup.home).pid_file(name).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1, 2, 4, 6, 8])
def test_a_terminal_that_closes_at_any_time_leaves_nothing_or_all(
    seconds: float, tmp_path: Path
) -> None:
    groundup = Groundup(tmp_path / "home", free_port(), tmp_path)
    with groundup.started("up") as up:
        time.sleep(seconds)
        up.send_signal(signal.SIGHUP)
        output = up.communicate(timeout=TIMEOUT_S)[0]
    if up.returncode == 0:  # it was done before
        assert groundup.run("down").stdout == "stopped worker and server\n"
    elif up.returncode == -signal.SIGHUP:  # the interpreter had not come to our code
        assert output == ""
    else:
        assert up.returncode == 128 + signal.SIGHUP
        assert output.splitlines()[-1] == GO_ON
    assert_nothing_is_left(groundup)


def test_a_signal_acts_after_what_it_may_not_interrupt() -> None:
    script = """
import os, signal, sys
from flows.prefect_host.uninterrupted import uninterrupted
try:
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        print("whole")
    print("not reached")
except KeyboardInterrupt:
    print("stopped by the first")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout == "whole\nstopped by the first\n"


def test_without_a_signal_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with uninterrupted():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
