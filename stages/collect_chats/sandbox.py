"""Runs Python sessions out of pages where they can do little harm, and gives what they print.

What the sandbox is: a separate interpreter in namespaces of its own (users, network, processes, shared memory) that forks one
process per session. That process has hard limits on processor time, wall time, memory, open files and processes. Landlock lets
it read the libraries of Python and of the system and nothing else: no home folder, no process of others, no file anywhere to
write, make, remove or execute. Python's audit events refuse files, processes and sockets once more. What a session leaves
running ends with it.
What it is not: a jail for hostile code; the kernel is as open to it as to any process. Hence only examples of the built-in
documentation server are run, whose modules this Python has imported anyway.

Where the kernel has no such namespaces for the user (macOS, most containers, Ubuntu with its AppArmor rule) or no Landlock
(before Linux 5.13), nothing is run: `missing` says why.
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
NAMESPACES = ("--map-root-user", "--net", "--ipc", "--pid", "--fork")
_ENVIRONMENT = {  # no folder of the user's, and no thread that a session did not ask for
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "COLUMNS": "80",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Outcome:
    """output: what the last statement printed; error: why there is none; not_run: nothing was tried."""

    output: str | None = None
    error: str | None = None
    not_run: bool = False


@cache
def missing() -> str:
    """Why sessions cannot be confined on this system, found by confining one; "" if they can."""
    if shutil.which("unshare") is None:
        return "there is no command `unshare` (of util-linux), which gives a process namespaces of its own"
    tried = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"this system gives you no namespaces of your own: {' '.join(tried.stderr.split())[:200]}"
    outcome = _outcomes([["1\n"]], 10, packages=False, megabytes=MEGABYTES)[0]
    return "" if outcome.output == "1\n" else str(outcome.error)


def run_sessions(
    sessions: Sequence[Sequence[str]],
    seconds: float,
    packages: bool = False,
    megabytes: int = MEGABYTES,
) -> list[Outcome]:
    """Each session is a list of statements as they are typed at the prompt. One outcome per session, in order.

    Nothing is run where sessions cannot be confined: then each outcome is an error.

    Args:
        sessions: Statements of each.
        seconds: Wall time of one session.
        packages: Installed packages can be imported, not only the standard library.
        megabytes: Memory of one session.
    """
    if not sessions:
        return []
    if why := missing():
        return [Outcome(error=why, not_run=True)] * len(sessions)
    return _outcomes(sessions, seconds, packages, megabytes)


def _outcomes(
    sessions: Sequence[Sequence[str]], seconds: float, packages: bool, megabytes: int
) -> list[Outcome]:
    command = [
        "unshare",
        *NAMESPACES,
        sys.executable,
        "-P",
        "-s",  # not -I, which would ignore PYTHONHASHSEED
        "-B",
        *([] if packages else ["-S"]),
        str(PROGRAM),
    ]
    task = {
        "seconds": seconds,
        "megabytes": megabytes,
        "home": os.path.realpath(os.path.expanduser("~")),
        "sessions": [list(session) for session in sessions],
    }
    with tempfile.TemporaryDirectory(prefix="groundup-doctest-") as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(
                json.dumps(task).encode(), timeout=30 + len(sessions) * (seconds + 1)
            )
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outcomes = [Outcome(**json.loads(line)) for line in said.splitlines()]
    return outcomes + [Outcome(error="the sandbox ended before it")] * (
        len(sessions) - len(outcomes)
    )
