"""The processes of `groundup up`, the server and the worker: starts, identifies and stops them.

A file in the home records each process. A record may be old, damaged or planted, and the system may
have given the id to another process. So a process counts as ours only if it says so itself: by its
owner, its command line, and the home in its environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from data_contracts.credentials import masked
from flows import private_home
from flows.home import Home, writing
from flows.prefect_host import process_records
from flows.prefect_host.uninterrupted import uninterrupted

REPOSITORY = Path(__file__).parents[2]
PROCESSES = ("worker", "server")  # in the order in which they are stopped
MODULES = {
    "worker": "flows.prefect_host.prefect_worker",
    "server": "flows.prefect_host.prefect_server",
}
GRACE_S = {"worker": 5, "server": 2}  # before they are killed; `down` ends within ten seconds
MAX_LOG_CHARS = 1500  # of the end of a log, in a message


def spawn(
    home: Home, process: str, command: list[str], handed_over: Sequence[int] = (), **record: Any
) -> None:
    """Start `python -m command` as our server or worker, and record it.

    Args:
        home: The home, for the log and the record.
        process: "server" or "worker".
        command: The module and its arguments.
        handed_over: File descriptors that the process inherits under the same numbers.
        record: Further fields for the record.
    """
    environ = dict(os.environ)
    # A run from the shell keeps Prefect's logs out of the terminal. The log file shall have them.
    environ.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", None)
    command = ["-m", *command]
    environ["GROUNDUP_HOME"] = str(home.path)
    with writing(home):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        log = os.fdopen(os.open(home.log(process), flags, 0o600), "ab")
    with log, uninterrupted():
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
        write_record(home, process, {"pid": child.pid, "command": command, **record})
    _wait_for_command_line(child)


def _wait_for_command_line(child: subprocess.Popen[bytes]) -> None:
    """Wait for the kernel to show the command of a new process, by which `alive` knows it.

    On a busy machine that takes a moment longer than the start itself.
    """
    while child.poll() is None:
        try:
            if psutil.Process(child.pid).cmdline():
                return
        except psutil.Error:
            return
        time.sleep(0.001)


def write_record(home: Home, process: str, record: dict[str, Any]) -> None:
    """Record a process of ours and the options with which it was started."""
    process_records.write(home, home.pid_file(process), record)


def record_of(home: Home, process: str) -> dict[str, Any]:
    """Return the record of a process of ours; empty if there is none or it cannot be used."""
    return process_records.read(home.pid_file(process))


def keep(home: Home, is_kept: bool) -> None:
    """Record whether the server and the worker that run stay when this command has ended."""
    with uninterrupted():
        for process in PROCESSES:
            record = record_of(home, process)
            if record and record.get("kept", False) != is_kept:
                write_record(home, process, record | {"kept": is_kept})


def alive(home: Home, process: str) -> psutil.Process | None:
    """Return our process if it still runs.

    Start times are not compared, because they move when a clock is set.
    """
    record = record_of(home, process)
    if not record:
        return None
    try:
        found = psutil.Process(record["pid"])
        is_ours = _is_ours(home, process, found) and found.cmdline()[1:] == record["command"]
    except (psutil.Error, OSError):
        return None
    return found if is_ours else None


def _is_ours(home: Home, process: str, found: psutil.Process) -> bool:
    has_our_owner = found.uids().real == os.getuid()
    has_our_command = found.cmdline()[1:3] == ["-m", MODULES[process]]
    # The environment of others cannot be read, so the order matters.
    return (
        has_our_owner and has_our_command and found.environ().get("GROUNDUP_HOME") == str(home.path)
    )


def recover(home: Home) -> list[str]:
    """Set records aside that cannot be used, and record again what runs.

    Returns:
        A line for people about each record that was set aside.
    """
    lines = []
    for process in PROCESSES:
        path = home.pid_file(process)
        if not os.path.lexists(path) or alive(home, process):
            continue
        line = ""
        why = process_records.problem(path)
        if why:
            aside = process_records.set_aside(home, path)
            line = f"{path} was not a record of groundup ({why}); it is now {aside.name}"
        found = _search(home, process)
        if found:
            line = line or f"{path} named another process"
            line += f"; the {process} that runs was found and is recorded again"
            write_record(home, process, _record_from(home, process, found))
        if line:
            lines.append(line)
    return lines


def _search(home: Home, process: str) -> psutil.Process | None:
    for candidate in psutil.process_iter():
        try:
            if _is_ours(home, process, candidate):
                return candidate
        except (psutil.Error, OSError):
            continue
    return None


def _record_from(home: Home, process: str, found: psutil.Process) -> dict[str, Any]:
    """Return the record of a process that runs, made from the process itself."""
    command = found.cmdline()[1:]
    record: dict[str, Any] = {"pid": found.pid, "command": command}
    if process == "server":
        # `groundup up` keeps a server and has a worker; a run from the shell has none.
        return record | {"kept": alive(home, "worker") is not None}
    environ = found.environ()
    at_once = int(command[4])  # of: -m MODULE POOL NAME LIMIT
    url = masked(environ.get("PREFECT_API_URL", ""))
    store = environ.get("GROUNDUP_STORE", "")
    return record | {"kept": True, "at_once": at_once, "url": url, "store": store}


def stop(home: Home, process: str) -> bool:
    """Terminate one of our processes and its children; kill what is left after GRACE_S.

    The runs of a worker are terminated, too, and have the time to reach a resume checkpoint. Their
    own children are left to them: if a worker process of a stage ended first, the stage would
    report that it was killed for want of memory.

    Returns:
        Whether the process was running.
    """
    found = alive(home, process)
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
    home.pid_file(process).unlink(missing_ok=True)
    return found is not None


def _wait_then_kill(family: list[psutil.Process], grace_s: float) -> None:
    _, left = psutil.wait_procs(family, timeout=grace_s)
    for member in left:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=1)


def recorded(home: Home) -> set[int]:
    """Return the ids of our recorded processes that may outlive this command.

    A server ends by itself when nobody uses it, and others may. A worker stays once `up` is done.
    """
    worker = record_of(home, "worker")
    records = [record_of(home, "server"), worker if worker.get("kept") else {}]
    return {record["pid"] for record in records if record}


def log_end(home: Home, process: str) -> str:
    """Return the end of a process's log."""
    with home.log(process).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4 * MAX_LOG_CHARS))  # a character has at most four bytes
        return file.read().decode("utf-8", "replace")[-MAX_LOG_CHARS:]
