"""`groundup up` and `groundup down`: a Prefect server, its deployments and one worker, on loopback, for this folder.

A Prefect that the user already has (PREFECT_API_URL is set) is respected: then only deployments and a worker are added.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import psutil

from data_contracts import ConfigError, GroundupError
from flows.home import Home

REPOSITORY = Path(__file__).parent.parent
POOL = WORKER = "groundup"
PROCESSES = ("worker", "server")  # in the order in which they are stopped
WAIT_S = 120
GENTLY_S = {"worker": 5, "server": 2}  # seconds that they have to end by themselves: `down` is done within ten


def environment(at: Home, port: int | None = None) -> dict[str, str]:
    """Settings for every process that speaks to Prefect. Must be in os.environ before prefect is imported.

    Telemetry is off: it would fail and complain on machines without a way out. A page of another origin in the user's
    browser cannot start runs: changes need a token (CSRF protection), and only our own pages may read it (CORS).
    """
    settings = {
        "PREFECT_HOME": str(at.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        # SQLite has one writer (see prefect_server.py): what Prefect writes for its own records goes in batches, every five seconds.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
        "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT": "3600",
        "PREFECT_CLI_PROMPT": "false",
        "GROUNDUP_FOLDER": str(Path.cwd()),
        "GROUNDUP_HOME": str(at.path),
        "GROUNDUP_STORE": at.store,
    }
    if given := os.environ.get("PREFECT_API_URL"):
        settings["PREFECT_API_URL"] = given.rstrip("/")
    else:
        chosen = port or _recorded_port(at) or _usual_port()
        settings["PREFECT_API_URL"] = f"http://127.0.0.1:{chosen}/api"
        settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = f"http://127.0.0.1:{chosen},http://localhost:{chosen}"
    return settings | _proxies()


def _proxies() -> dict[str, str]:
    """The proxies in use, if any, without loopback, as variables: the system's own on macOS reach httpx without their exceptions."""
    proxies = urllib.request.getproxies()
    direct = proxies.pop("no", "")
    if not proxies or direct == "*":
        return {}
    direct = ",".join(dict.fromkeys([*filter(None, direct.split(",")), "127.0.0.1", "localhost"]))
    return {f"{scheme}_proxy": url for scheme, url in proxies.items()} | {"no_proxy": direct, "NO_PROXY": direct}


def ui_url() -> str:
    return os.environ["PREFECT_API_URL"].removesuffix("/api")


def is_up(url: str | None = None) -> bool:
    """True if a Prefect API answers."""
    try:
        with urllib.request.urlopen((url or os.environ["PREFECT_API_URL"]) + "/health", timeout=2) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


@contextmanager
def running_server(at: Home, meanwhile: Callable[[], object]) -> Iterator[bool]:
    """A server for the length of a run, unless ours is up already; gives whether it was started here.

    `meanwhile` is called while the server starts. A port that another program has is left to it. Runs that overlap share
    the server; the last to leave stops it, unless `up` has come meanwhile.
    """
    given = os.environ.get("PREFECT_API_URL")
    os.environ.update(environment(at))
    if given:
        _expect_answer()
        meanwhile()
        yield False
        return
    with _users(at) as users:
        try:
            with _starting_or_stopping(at):
                fcntl.flock(users, fcntl.LOCK_SH)
                started_here = _ensure_server(at, None, meanwhile, or_any_port=True)
            yield started_here
        finally:
            with _starting_or_stopping(at):
                fcntl.flock(users, fcntl.LOCK_UN)
                if not _in_use(at) and not _record(at, "server").get("kept"):
                    stop(at, "server")


def up(at: Home, port: int | None = None, at_once: int | None = None) -> str:
    """Server, work pool, deployments, worker. Running it again repairs what is missing. Returns the address of the UI.

    at_once: how many runs the worker does at a time, by default 1: two that train on the same cores take longer than one after the other.
    Raises GroundupError if the port is taken, or if what already runs was started with other arguments.
    """
    with _starting_or_stopping(at):
        ran = [process for process in PROCESSES if _alive(at, process)]
        try:
            return _up(at, port, at_once)
        except BaseException:  # nothing is left half started, by Ctrl-C either
            for process in PROCESSES:
                if process not in ran:
                    stop(at, process)
            raise


def _up(at: Home, port: int | None, at_once: int | None) -> str:
    given = os.environ.get("PREFECT_API_URL")
    if (running := _recorded_port(at)) and port and port != running:
        raise GroundupError(f"--port {port}", f"groundup is up on port {running}", "groundup down, then groundup up again")
    os.environ.update(environment(at, port))
    if given:
        _expect_answer()
    else:
        _ensure_server(at, port, meanwhile=lambda: import_module("flows.deployments"))
    from flows import deployments  # not before the server is chosen: prefect reads its settings when it is imported

    if not (given or _alive(at, "worker") or _in_use(at)):
        deployments.tell_lost_runs()
    deployments.deploy()
    _ensure_worker(at, at_once, deployments.last_heartbeat)
    if not given:
        _write_record(at, "server", _record(at, "server") | {"kept": True})
    return ui_url()


def down(at: Home) -> str:
    """Stop worker and server, and say so. A server that a run from the shell still uses is left to it."""
    if not at.prefect.exists():
        return "nothing was up"
    with _starting_or_stopping(at):
        if _alive(at, "server") and _in_use(at):
            told = "stopped worker; " if stop(at, "worker") else ""
            _write_record(at, "server", _record(at, "server") | {"kept": False})
            return f"{told}a run still uses the server, and will stop it"
        stopped = [process for process in PROCESSES if stop(at, process)]
        return f"stopped {' and '.join(stopped)}" if stopped else "nothing was up"


def stop(at: Home, process: str) -> bool:
    """Stop one of our processes and its children, gently, then for good. False if it did not run.

    Runs of a worker are asked, too, and have the time to reach their safe point. What they started in turn is theirs to end:
    a worker process of a stage that ended by itself would look like one that was killed for want of memory.
    """
    found = _alive(at, process)
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
    return {record["pid"] for process in PROCESSES if (record := _record(at, process))}


@contextmanager
def _starting_or_stopping(at: Home) -> Iterator[None]:
    """Only one process at a time looks for a server, starts one or stops it. The lock dies with its process."""
    with _writing(at):
        at.prefect.mkdir(parents=True, exist_ok=True)
        lock = (at.prefect / "server.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _users(at: Home) -> TextIO:
    """The file of which every run from the shell holds a shared lock."""
    with _writing(at):
        at.prefect.mkdir(parents=True, exist_ok=True)
        return (at.prefect / "server.users").open("a")


def _in_use(at: Home) -> bool:
    with _users(at) as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _writing(at: Home) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GroundupError(
            f"the folder {at.path}", f"cannot be written: {error.strerror}", "repair that, or give another: GROUNDUP_HOME=FOLDER groundup …"
        ) from error


def _expect_answer() -> None:
    if not is_up():
        raise GroundupError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']}", "does not answer", "start it, or unset PREFECT_API_URL"
        )


def _ensure_server(at: Home, port: int | None, meanwhile: Callable[[], object], or_any_port: bool = False) -> bool:
    """Our server answers; True if it had to be started.

    Raises GroundupError if the port is taken, or with the end of its log if it does not come up in time.
    """
    alive = _alive(at, "server")
    _address(at, port)
    if not alive:
        if why := _barred(_port()):
            if not or_any_port:
                raise GroundupError(f"port {_port()}", why, f"groundup up --port {_any_port()}")
            _address(at, _any_port())
        _spawn(at, "server", ["flows.prefect_server", "server", "start", "--host", "127.0.0.1", "--port", str(_port())], port=_port())
    meanwhile()
    _wait_for(at, "server", is_up)
    return not alive


def _ensure_worker(at: Home, at_once: int | None, last_heartbeat: Callable[[], object]) -> None:
    """A worker that the server has heard of. Raises GroundupError if the one that runs is not the one wanted."""
    wanted = {"at_once": at_once or 1, "url": os.environ["PREFECT_API_URL"], "store": at.store}
    if _alive(at, "worker"):
        record = _record(at, "worker")
        told = {"at_once": "does {} at once" if at_once else "", "url": "asks {} for work", "store": "works on the store {}"}
        for key, text in told.items():
            if text and record[key] != wanted[key]:
                why = f"the worker that runs {text.format(record[key])}, not {wanted[key]}"
                raise GroundupError("groundup up", why, "groundup down, then groundup up again")
        return
    before = last_heartbeat()
    command = ["prefect", "worker", "start", "--pool", POOL, "--name", WORKER, "--type", "process", "--limit", str(wanted["at_once"])]
    _spawn(at, "worker", command, **wanted)
    _wait_for(at, "worker", lambda: last_heartbeat() != before)


def _spawn(at: Home, process: str, command: list[str], **record: Any) -> None:
    # a run from the shell keeps the terminal clear of Prefect's logs; in a log file they belong
    environ = {name: value for name, value in os.environ.items() if name != "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"}
    command = ["-m", *command]
    with _writing(at):
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
        )
    _write_record(at, process, {"pid": child.pid, "command": command, **record})


def _write_record(at: Home, process: str, record: dict[str, Any]) -> None:
    new = at.pid_file(process).with_suffix(".new")
    with _writing(at):
        new.write_text(json.dumps(record), "utf-8")
        new.replace(at.pid_file(process))


def _record(at: Home, process: str) -> dict[str, Any]:
    """What is written of a process of ours; empty if there is none."""
    try:
        found: dict[str, Any] = json.loads(at.pid_file(process).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _alive(at: Home, process: str) -> psutil.Process | None:
    """Our process, if it still runs. A recycled process id is told by its command line: start times move when a clock is set."""
    record = _record(at, process)
    try:
        found = psutil.Process(record["pid"]) if record else None
        return found if found and found.cmdline()[1:] == record.get("command") else None
    except psutil.Error:
        return None


def _recorded_port(at: Home) -> int | None:
    return int(_record(at, "server")["port"]) if _alive(at, "server") else None


def _usual_port() -> int:
    text = os.environ.get("GROUNDUP_PORT", "4200")
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise ConfigError(f"GROUNDUP_PORT={text}", "is not a port", "give a number from 1 to 65535")
    return int(text)


def _address(at: Home, port: int | None) -> None:
    """Point this process, and what it starts, at our server: where it runs, else at `port`."""
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(environment(at, _recorded_port(at) or port))


def _port() -> int:
    return int(os.environ["PREFECT_API_URL"].split(":")[2].split("/")[0])


def _barred(port: int) -> str | None:
    """Why no server of ours could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "is kept for root by the system"
        except OSError:
            return "is taken by another program"
    return None


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(at: Home, process: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not ready():
        if not _alive(at, process) or time.monotonic() > deadline:
            raise GroundupError(
                f"the Prefect {process}",
                f"did not come up; its log ends:\n{_log_end(at, process)}",
                f"see {at.log(process)}, then groundup up",
            )
        time.sleep(0.1)


def _log_end(at: Home, process: str) -> str:
    return at.log(process).read_text("utf-8", "replace")[-1500:]
