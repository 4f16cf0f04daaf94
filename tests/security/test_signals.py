"""Every way to end a command ends all that it started, says how to go on, and gives the status that shells expect."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from flows.home import Home
from flows.prefect_host import server_life
from tests.flows.conftest import REPOSITORY, Groundup, free_port

GO_ON = "interrupted; run the same command again to go on"
PATIENCE_S = (
    120  # for a busy machine; what is claimed of time is in the constants that the code waits for
)
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
every_ending = pytest.mark.parametrize("number", ENDINGS, ids=lambda number: number.name)

# `groundup` with one command of the test's own, in place of those that take minutes
COMMAND = """
import os, sys, time
from flows import failures

{body}

sys.exit(failures.status_of(command, "--json" in sys.argv))
"""
SHARDS = """
from pathlib import Path
from stages.execution.shards import map_shards

def work(number):
    Path(f"{number}.working").write_text(str(os.getpid()))
    time.sleep(600)

def command():
    print("begun", flush=True)
    for _ in map_shards(work, range(4), 2):
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
    draft = Draft("checkpoint", Path("draft").resolve())
    draft.scratch.mkdir(parents=True, exist_ok=True)
    config = SimpleNamespace(compute=SimpleNamespace(devices=2), model_dump=lambda mode: {})
    launch._torchrun("pretrain", config, {}, draft, Report())
"""


@every_ending
@pytest.mark.slow
def test_workers_of_a_stage_end_with_it(number: signal.Signals, tmp_path: Path) -> None:
    with own_command(tmp_path, SHARDS) as command:
        workers = [int(path.read_text()) for path in appearing(tmp_path, "*.working", 2)]
        command.send_signal(number)
        told = command.communicate(timeout=PATIENCE_S)[1]
    assert command.returncode == 128 + number
    assert told.splitlines()[-1] == GO_ON
    assert "Traceback" not in told
    assert_gone(workers)


@pytest.mark.slow
def test_ctrl_c_reaches_the_whole_group_and_is_told_once(tmp_path: Path) -> None:
    with own_command(tmp_path, SHARDS, start_new_session=True) as command:
        workers = [int(path.read_text()) for path in appearing(tmp_path, "*.working", 2)]
        os.killpg(command.pid, signal.SIGINT)
        told = command.communicate(timeout=PATIENCE_S)[1]
    assert told == f"{GO_ON}\n"
    assert command.returncode == 130
    assert_gone(workers)


@pytest.mark.slow
def test_workers_end_when_their_stage_is_killed(tmp_path: Path) -> None:
    with own_command(tmp_path, SHARDS) as command:
        workers = [int(path.read_text()) for path in appearing(tmp_path, "*.working", 2)]
        command.kill()
        command.communicate(timeout=PATIENCE_S)
    assert_gone(workers)


@every_ending
@pytest.mark.slow
def test_what_does_not_heed_a_signal_is_ended_with_its_children(
    number: signal.Signals, tmp_path: Path
) -> None:
    with own_command(tmp_path, DEAF, GROUNDUP_GRACE_S="0.5") as command:
        assert command.stdout
        child = int(command.stdout.readline())
        command.send_signal(number)
        told = command.communicate(timeout=PATIENCE_S)[1]
    assert command.returncode == 128 + number
    assert told == f"{GO_ON}\n"
    assert_gone([child])


@every_ending
@pytest.mark.slow
def test_a_child_that_nobody_ended_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    with own_command(tmp_path, LEFT) as command:
        assert command.stdout
        child = int(command.stdout.readline())
        command.send_signal(number)
        told = command.communicate(timeout=PATIENCE_S)[1]
    assert (command.returncode, told) == (128 + number, f"{GO_ON}\n")
    assert_gone([child])


@pytest.mark.slow
def test_ranks_that_do_not_stop_are_ended(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RANKS)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    with own_command(tmp_path, TORCHRUN, PYTHONPATH=path, GROUNDUP_GRACE_S="0.5") as command:
        ranks = [int(path.read_text()) for path in appearing(tmp_path, "draft/*.rank", 2)]
        family = [one.pid for one in psutil.Process(command.pid).children(recursive=True)]
        command.terminate()
        told = command.communicate(timeout=PATIENCE_S)[1]
    assert command.returncode == 143, told
    assert set(ranks) <= set(family)
    assert_gone(family)


@pytest.mark.slow
def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    with own_command(tmp_path, PATIENT, before=("nohup",)) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        command.send_signal(signal.SIGHUP)
        said = command.communicate("go on\n", timeout=PATIENCE_S)[0]
    assert (command.returncode, said) == (0, "done\n")


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
        said = command.communicate(timeout=PATIENCE_S)[0]
    assert (command.returncode, said) == (0, f"{-signal.SIGTERM}\n"), "the parent was not asked"


@every_ending
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
        told = run.stdout.read()
        run.wait(PATIENCE_S)
    assert run.returncode == 128 + number, told
    assert told.splitlines()[-1] == GO_ON
    assert "Traceback" not in told
    assert family, "the server, at least"
    assert_gone(family)
    assert not listening(groundup.port)


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
    assert not listening(groundup.port)


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_the_run(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path, free_port())
    command = [str(Path(sys.executable).with_name("groundup")), *endless_run()]
    run, terminal = pty.fork()
    if run == 0:
        os.chdir(REPOSITORY)
        os.execve(command[0], command, groundup.environment)
    try:
        record = tmp_path / "prefect" / "server.json"
        wait_until(lambda: record.is_file() and listening(groundup.port), terminal)
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
        told = up.communicate(timeout=PATIENCE_S)[0]
    assert up.returncode == 143
    assert told.splitlines()[-1] == GO_ON
    assert_gone([server])


@pytest.fixture
def served(tmp_path: Path) -> Home:
    """A home whose server is this process, as far as the record says."""
    at = Home(tmp_path)
    at.prefect.mkdir()
    record(at)
    return at


def record(at: Home, **more: object) -> None:
    at.pid_file("server").write_text(json.dumps({"pid": os.getpid(), "command": []} | more))


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


@contextmanager
def own_command(
    folder: Path,
    body: str,
    before: tuple[str, ...] = (),
    start_new_session: bool = False,
    **more: str,
) -> Iterator[subprocess.Popen[str]]:
    program = folder / "command.py"
    program.write_text(guarded(body))
    environment = (
        os.environ | {"PYTHONPATH": str(REPOSITORY), "GROUNDUP_HOME": str(folder / "home")} | more
    )
    process = subprocess.Popen(
        [*before, sys.executable, str(program)], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=start_new_session,
    )  # fmt: skip
    try:
        yield process
    finally:
        for one in [*descendants(process.pid), process]:
            one.kill()
        process.communicate()


def guarded(body: str) -> str:
    """Worker processes import the program again, and must not run it."""
    program, _, end = COMMAND.format(body=body).rpartition("sys.exit(")
    return f'{program}if __name__ == "__main__":\n    sys.exit({end}'


def endless_run() -> list[str]:
    changes = [
        "crawl.sources=[{kind: files, paths: ['*.md']}]",
        "pretrain.training.duration=100000",
    ]
    return ["run", "--recipe", "own", *(part for text in changes for part in ("--set", text))]


def appearing(folder: Path, pattern: str, count: int) -> list[Path]:
    """Files that other processes write, once there are `count` and each has something in it."""

    def found() -> list[Path]:
        written = [path for path in folder.glob(pattern) if path.stat().st_size]
        return written if len(written) >= count else []

    return wait_until(found)


def wait_until(condition: Callable[[], object], terminal: int | None = None) -> object:
    """What the condition gives once that is true. Reads the terminal meanwhile, which holds little."""
    ends = time.monotonic() + PATIENCE_S
    while not (found := condition()) or found == (0, 0):
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.05)
        if terminal is not None:
            os.set_blocking(terminal, False)
            with suppress(BlockingIOError):
                os.read(terminal, 65536)
    return found


def assert_gone(processes: list[int]) -> None:
    def left() -> list[int]:
        return [one for one in processes if psutil.pid_exists(one) and not is_zombie(one)]

    wait_until(lambda: not left())


def is_zombie(process: int) -> bool:
    """Ended, and not yet asked about by whoever inherited it."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listening(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def descendants(process: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).children(recursive=True)
    return []
