"""Runs Python sessions out of pages where they can do little harm, and gives what they print.

What the sandbox is: a separate interpreter (no path or environment of the user's, empty working folder, its own process group)
that forks one process per session with hard limits on processor time, wall time, memory and open files; no file can be
written to (file size limit 0) and, where the kernel has Landlock (Linux 5.13), none made, removed or executed; no network
where a user may unshare it; and Python's audit events refuse files, processes and sockets a third time.
What it is not: a jail for hostile code. Files of the user can be read, and on macOS only the limits and the audit events
hold. Hence the setting `doctest.sources`: code of unnamed sources is never run. Documents carry their source's name, not its
kind, so it is the name that is trusted.
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

MEGABYTES = 512


@dataclass(frozen=True)
class Outcome:
    """output: what the last statement printed; error: why there is none."""

    output: str | None = None
    error: str | None = None


def run_sessions(sessions: Sequence[Sequence[str]], seconds: float, packages: bool = False, megabytes: int = MEGABYTES) -> list[Outcome]:
    """Each session is a list of statements as they are typed at the prompt. One outcome per session, in order.

    seconds: wall time of one session. packages: installed packages can be imported, not only the standard library.
    """
    if not sessions:
        return []
    command = [
        *_without_network(),
        sys.executable,
        "-P",
        "-s",  # not -I, which would ignore PYTHONHASHSEED
        "-B",
        *([] if packages else ["-S"]),
        str(Path(__file__).with_name("sandboxed.py")),
    ]
    environment = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LANG": "C.UTF-8", "COLUMNS": "80"}
    task = json.dumps({"seconds": seconds, "megabytes": megabytes, "sessions": [list(session) for session in sessions]})
    with tempfile.TemporaryDirectory(prefix="groundup-doctest-") as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(task.encode(), timeout=30 + len(sessions) * (seconds + 1))
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outcomes = [Outcome(**json.loads(line)) for line in said.splitlines()]
    return outcomes + [Outcome(error="the sandbox ended before it")] * (len(sessions) - len(outcomes))


@cache
def _without_network() -> tuple[str, ...]:
    """The start of a command that gives it an empty network namespace, where the system lets a user do that."""
    unshare = shutil.which("unshare")
    command = (unshare or "", "--map-root-user", "--net")
    return command if unshare and subprocess.run([*command, "true"], capture_output=True).returncode == 0 else ()
