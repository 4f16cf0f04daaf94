"""The processes of `groundup up`, the server and the worker: starts, identifies and stops them.

A file in the home records each process. A recorded process is identified by its id, its command
line and its owner, because the system may have given its id to another process, and any user can
start a process with the same command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from flows import private_home
from flows.home import Home, writing

REPOSITORY = Path(__file__).parents[2]
PROCESSES = ("worker", "server")  # in the order in which they are stopped
GRACE_S = {"worker": 5, "server": 2}  # before they are killed; `down` ends within ten seconds
MAX_LOG_CHARS = 1500  # of the end of a log, in a message


def spawn(
    at: Home, process: str, command: list[str], handed_over: Sequence[int] = (), **record: Any
) -> None:
    """Start `python -m command` as our server or worker, and record it.

    Args:
        at: The home, for the log and the record.
        process: "server" or "worker".
        command: The module and its arguments.
        handed_over: File descriptors that the process inherits under the same numbers.
        record: Further fields for the record.
    """
    environ = dict(os.environ)
    # A run from the shell keeps Prefect's logs out of the terminal. The log file shall have them.
    environ.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", None)
    command = ["-m", *command]
    with writing(at):
        log = at.log(process).open("ab")
    with log:
        child = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=handed_over,
            umask=private_home.umask(),
        )
    write_record(at, process, {"pid": child.pid, "command": command, **record})


def write_record(at: Home, process: str, record: dict[str, Any]) -> None:
    """Record a process of ours and the options with which it was started."""
    new = at.pid_file(process).with_suffix(".new")
    with writing(at):
        new.write_text(json.dumps(record), "utf-8")
        new.replace(at.pid_file(process))


def record_of(at: Home, process: str) -> dict[str, Any]:
    """Return the record of a process of ours; empty if there is none or it is malformed."""
    try:
        record = json.loads(at.pid_file(process).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    has_pid = isinstance(record.get("pid"), int)
    has_command = isinstance(record.get("command"), list)
    return record if has_pid and has_command else {}


def alive(at: Home, process: str) -> psutil.Process | None:
    """Return our process if it still runs.

    Start times are not compared, because they move when a clock is set.
    """
    record = record_of(at, process)
    if not record:
        return None
    try:
        found = psutil.Process(record["pid"])
        has_our_owner = found.uids().real == os.getuid()
        is_ours = has_our_owner and found.cmdline()[1:] == record["command"]
    except psutil.Error:
        return None
    return found if is_ours else None


def stop(at: Home, process: str) -> bool:
    """Terminate one of our processes and its children; kill what is left after GRACE_S.

    The runs of a worker are terminated, too, and have the time to reach a resume checkpoint. Their
    own children are left to them: if a worker process of a stage ended first, the stage would
    report that it was killed for want of memory.

    Returns:
        Whether the process was running.
    """
    found = alive(at, process)
    if found:
        terminated = [found]
        with suppress(psutil.NoSuchProcess):
            terminated += found.children()
        family = list(terminated)
        for member in terminated:
            with suppress(psutil.NoSuchProcess):
                descendants = member.children(recursive=True)
                family += [child for child in descendants if child not in family]
                member.terminate()
        _wait_then_kill(family, GRACE_S[process])
    at.pid_file(process).unlink(missing_ok=True)
    return found is not None


def _wait_then_kill(family: list[psutil.Process], grace_s: float) -> None:
    _, left = psutil.wait_procs(family, timeout=grace_s)
    for member in left:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=1)


def recorded(at: Home) -> set[int]:
    """Return the ids of our recorded processes, which other commands may use."""
    records = [record_of(at, process) for process in PROCESSES]
    return {record["pid"] for record in records if record}


def log_end(at: Home, process: str) -> str:
    """Return the end of a process's log."""
    return at.log(process).read_text("utf-8", "replace")[-MAX_LOG_CHARS:]
