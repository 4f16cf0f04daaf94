"""Runs Python sessions from pages where they can do little harm, and returns what they print.

What the sandbox is: a separate interpreter in its own namespaces (users, network, processes,
shared memory). It forks one process per session. That process has hard limits on processor time,
wall time, memory, open files and processes. Landlock lets it read the libraries of Python and of
the system, and nothing else. A session cannot see a home folder or another process, and it cannot
write, create, remove or execute a file. As a second barrier, Python's audit events refuse files,
processes and sockets. Whatever a session leaves running ends with it.

What the sandbox is not: a jail for hostile code. The kernel is as open to it as to any process.
Therefore only examples of the built-in documentation server are run. This Python has imported
their modules anyway.

Some kernels give the user no such namespaces (macOS, most containers, Ubuntu with its AppArmor
rule) or have no Landlock (before Linux 5.13). There, nothing is run, and `missing` says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROGRAM = Path(__file__).with_name("sandboxed.py")
MEGABYTES = 512
STARTUP_SECONDS = 30  # for the interpreter, beyond the time of the sessions
NAMESPACES = ("--map-root-user", "--net", "--ipc", "--pid", "--fork")
# No folder of the user, and no thread that a session did not ask for.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "COLUMNS": "80",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class SessionOutcome:
    """What came of one session.

    Attributes:
        output: What the last statement printed; None if the session failed.
        error: Why there is no output.
        not_run: Whether nothing was tried, because sessions cannot be confined.
    """

    output: str | None = None
    error: str | None = None
    not_run: bool = False


@cache
def missing() -> str:
    """Try to confine a session.

    Returns:
        What this system lacks for it; empty if sessions can be confined.
    """
    if shutil.which("unshare") is None:
        return (
            "there is no command `unshare` (of util-linux), "
            "which gives a process namespaces of its own"
        )
    trial = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True)
    if trial.returncode:
        why = " ".join(trial.stderr.split())[:200]
        return f"this system gives you no namespaces of your own: {why}"
    outcome = _run_confined([["1\n"]], 10, packages=False, megabytes=MEGABYTES)[0]
    return "" if outcome.output == "1\n" else str(outcome.error)


def run_sessions(
    sessions: Sequence[Sequence[str]],
    seconds: float,
    packages: bool = False,
    megabytes: int = MEGABYTES,
) -> list[SessionOutcome]:
    """Run each session in a confined process.

    Args:
        sessions: The statements of each session, as they are typed at the prompt.
        seconds: Wall time of one session.
        packages: Whether installed packages can be imported, not only the standard library.
        megabytes: Memory of one session.

    Returns:
        One outcome per session, in order. Where sessions cannot be confined, none is run and each
        outcome is an error.
    """
    if not sessions:
        return []
    why = missing()
    if why:
        return [SessionOutcome(error=why, not_run=True)] * len(sessions)
    return _run_confined(sessions, seconds, packages, megabytes)


def _run_confined(
    sessions: Sequence[Sequence[str]], seconds: float, packages: bool, megabytes: int
) -> list[SessionOutcome]:
    task = {
        "seconds": seconds,
        "megabytes": megabytes,
        "home": os.path.realpath(os.path.expanduser("~")),
        "sessions": [list(session) for session in sessions],
    }
    time_limit = STARTUP_SECONDS + len(sessions) * (seconds + 1)
    answer = _ask_program(json.dumps(task).encode(), packages, time_limit)
    outcomes = [SessionOutcome(**json.loads(line)) for line in answer.splitlines()]
    lost = len(sessions) - len(outcomes)
    return outcomes + [SessionOutcome(error="the sandbox ended before it")] * lost


def _ask_program(task: bytes, packages: bool, time_limit: float) -> bytes:
    """Run the program in its namespaces and return its output; nothing if it is too slow."""
    # Not -I: Python would ignore PYTHONHASHSEED.
    options = ["-P", "-s", "-B"]
    if not packages:
        options.append("-S")
    with tempfile.TemporaryDirectory(prefix="groundup-doctest-") as folder:
        process = subprocess.Popen(
            ["unshare", *NAMESPACES, sys.executable, *options, str(PROGRAM)],
            cwd=folder,
            env=_ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            answer, _ = process.communicate(task, timeout=time_limit)
        except subprocess.TimeoutExpired:
            answer = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return answer
