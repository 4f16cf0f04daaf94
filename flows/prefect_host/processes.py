"""The processes of `groundup up`, the server and the worker: started, known again, stopped.

A file in the home says of each which process it is. A process is known again by its id, its command line and its owner: an
id may have gone to another process meanwhile, and any user can start one with the same command line.
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
GENTLY_S = {
    "worker": 5,
    "server": 2,
}  # seconds that they have to end by themselves: `down` is done within ten


def spawn(
    at: Home, process: str, command: list[str], handed_over: Sequence[int] = (), **record: Any
) -> None:
    """Start `python -m command` as our server or worker, with its log, and write down which process it is.

    handed_over: file descriptors that it inherits under the same numbers.
    """
    # a run from the shell keeps the terminal clear of Prefect's logs; in a log file they belong
    environ = {
        name: value
        for name, value in os.environ.items()
        if name != "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
    }
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
    """Write down which process it is, and what was asked of it."""
    new = at.pid_file(process).with_suffix(".new")
    with writing(at):
        new.write_text(json.dumps(record), "utf-8")
        new.replace(at.pid_file(process))


def record_of(at: Home, process: str) -> dict[str, Any]:
    """What is written of a process of ours; empty if there is nothing, or nothing that we would write."""
    try:
        found = json.loads(at.pid_file(process).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    is_ours = (
        isinstance(found, dict)
        and isinstance(found.get("pid"), int)
        and isinstance(found.get("command"), list)
    )
    return found if is_ours else {}


def alive(at: Home, process: str) -> psutil.Process | None:
    """Our process, if it still runs; start times are not compared, for they move when a clock is set."""
    record = record_of(at, process)
    try:
        found = psutil.Process(record["pid"]) if record else None
        is_ours = (
            found
            and found.uids().real == os.getuid()
            and found.cmdline()[1:] == record.get("command")
        )
    except psutil.Error:
        return None
    return found if is_ours else None


def stop(at: Home, process: str) -> bool:
    """Stop one of our processes and its children, gently, then for good. False if it did not run.

    Runs of a worker are asked, too, and have the time to reach their safe point. What they started in turn is theirs to end:
    a worker process of a stage that ended by itself would look like one that was killed for want of memory.
    """
    found = alive(at, process)
    if found:
        asked = [found]
        with suppress(psutil.NoSuchProcess):
            asked += found.children()
        family = list(asked)
        for member in asked:
            with suppress(psutil.NoSuchProcess):
                family += [one for one in member.children(recursive=True) if one not in family]
                member.terminate()
        _end(family, GENTLY_S[process])
    at.pid_file(process).unlink(missing_ok=True)
    return found is not None


def _end(family: list[psutil.Process], gently: float) -> None:
    _, alive = psutil.wait_procs(family, timeout=gently)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=1)


def recorded(at: Home) -> set[int]:
    """The process ids of ours that are recorded: others may use these processes."""
    return {record["pid"] for process in PROCESSES if (record := record_of(at, process))}


def log_end(at: Home, process: str) -> str:
    """The last lines of its log."""
    return at.log(process).read_text("utf-8", "replace")[-1500:]
