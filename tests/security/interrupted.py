"""Programs that are ended by signals, and what has become of their processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import REPOSITORY

GO_ON = "interrupted; run the same command again to go on"
# For a busy machine. The claims about time are in the constants that the code waits for.
TIMEOUT_S = 300
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
every_signal = pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)

# `groundup` with a command that a test defines, in place of those that take minutes.
COMMAND = """
import os, sys, time
from flows.cli import failures

{body}

sys.exit(failures.status_of(command, "--json" in sys.argv))
"""


@contextmanager
def own_command(
    folder: Path,
    body: str,
    before: tuple[str, ...] = (),
    start_new_session: bool = False,
    **more: str,
) -> Iterator[subprocess.Popen[str]]:
    """Run `groundup` with the `command` that `body` defines, and kill what is left of it.

    Args:
        folder: The working folder, which also holds the program and the home.
        body: Source code that defines `command`.
        before: A command to start the program with, such as ("nohup",).
        start_new_session: Whether the program gets a process group of its own.
        more: Further environment variables.
    """
    program = folder / "command.py"
    program.write_text(guarded(body))
    paths = {"PYTHONPATH": str(REPOSITORY), "GROUNDUP_HOME": str(folder / "home")}
    process = subprocess.Popen(
        [*before, sys.executable, str(program)],
        cwd=folder,
        env=os.environ | paths | more,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=start_new_session,
    )
    try:
        yield process
    finally:
        for left in [*descendants(process.pid), process]:
            left.kill()
        process.communicate()


def guarded(body: str) -> str:
    """Return the program of a command. Worker processes import it again, and must not run it."""
    program, _, end = COMMAND.format(body=body).rpartition("sys.exit(")
    return f'{program}if __name__ == "__main__":\n    sys.exit({end}'


def appearing(folder: Path, pattern: str, count: int) -> list[Path]:
    """Wait for `count` files that other processes write, each with something in it."""

    def written_files() -> list[Path]:
        written = [path for path in folder.glob(pattern) if path.stat().st_size]
        return written if len(written) >= count else []

    return wait_until(written_files)


def wait_until(condition: Callable[[], object], terminal: int | None = None) -> object:
    """Wait until the condition is true, and return its value.

    Args:
        condition: Also counts as false if it returns (0, 0), as os.waitpid does.
        terminal: A terminal to read meanwhile, because it holds little.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        value = condition()
        if value and value != (0, 0):
            return value
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)
        if terminal is not None:
            os.set_blocking(terminal, False)
            with suppress(BlockingIOError):
                os.read(terminal, 65536)


def assert_gone(processes: list[int]) -> None:
    """Wait until none of the processes, given by their ids, runs any more."""

    def is_over() -> bool:
        return all(not psutil.pid_exists(pid) or is_zombie(pid) for pid in processes)

    wait_until(is_over)


def is_zombie(process: int) -> bool:
    """Return whether a process has ended and its parent has not waited for it yet."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_listening(port: int) -> bool:
    """Return whether a server listens on a port of the loopback interface."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def descendants(process: int) -> list[psutil.Process]:
    """Return the children of a process, their children and so on; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).children(recursive=True)
    return []
