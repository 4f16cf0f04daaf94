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
from pathlib import Path

import psutil

from data_contracts import ConfigError, GroundupError
from flows.home import Home

REPOSITORY = Path(__file__).parent.parent
POOL = "local"
WAIT_S = 120


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
        "GROUNDUP_HOME": str(at.path),
        "GROUNDUP_STORE": at.store,
    }
    if "PREFECT_API_URL" not in os.environ:
        chosen = port or _recorded_port(at) or _usual_port()
        settings["PREFECT_API_URL"] = f"http://127.0.0.1:{chosen}/api"
        settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = f"http://127.0.0.1:{chosen},http://localhost:{chosen}"
    return settings


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
    given = "PREFECT_API_URL" in os.environ
    os.environ.update(environment(at))
    if given:
        if not is_up():
            raise GroundupError(
                f"the Prefect server at {os.environ['PREFECT_API_URL']}", "does not answer", "start it, or unset PREFECT_API_URL"
            )
        meanwhile()
        yield False
        return
    at.prefect.mkdir(parents=True, exist_ok=True)
    with (at.prefect / "server.users").open("a") as users:
        with _starting_or_stopping(at):
            fcntl.flock(users, fcntl.LOCK_SH)
            started_here = _ensure_server(at, None, meanwhile, or_any_port=True)
        try:
            yield started_here
        finally:
            with _starting_or_stopping(at), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _record(at, "server").get("kept"):
                    stop(at, "server")


def up(at: Home, port: int | None = None, at_once: int | None = None) -> str:
    """Server, work pool, deployments, worker. Running it again repairs what is missing. Returns the address of the UI.

    at_once: how many runs the worker does at a time, by default 1: two that train on the same cores take longer than one after the other.
    Raises GroundupError if the port is taken, or if what already runs was started with other arguments.
    """
    given = "PREFECT_API_URL" in os.environ
    if (running := _recorded_port(at)) and port and port != running:
        raise GroundupError(f"--port {port}", f"groundup is up on port {running}", "groundup down, then groundup up again")
    if at_once and _alive(at, "worker") and (limit := _record(at, "worker").get("at_once")) != at_once:
        raise GroundupError(f"--at-once {at_once}", f"the worker that runs does {limit} at once", "groundup down, then groundup up again")
    os.environ.update(environment(at, port))
    if not given:
        with _starting_or_stopping(at):
            _ensure_server(at, port)
            _write_record(at, "server", _record(at, "server") | {"kept": 1})
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect("deploy", "--prefect-file", str(REPOSITORY / "infra" / "prefect.yaml"), "--all")
    if not _alive(at, "worker"):
        limit = at_once or 1
        command = ["prefect", "worker", "start", "--pool", POOL, "--name", "groundup", "--type", "process", "--limit", str(limit)]
        _spawn(at, "worker", command, at_once=limit)
        time.sleep(1)  # long enough to fail at once
        if not _alive(at, "worker"):
            raise GroundupError(
                "the Prefect worker", f"ended; its log ends:\n{_log_end(at, 'worker')}", f"see {at.log('worker')}, then groundup up"
            )
    return ui_url()


def down(at: Home) -> list[str]:
    """Stop worker and server; returns which of them ran."""
    return [process for process in ("worker", "server") if stop(at, process)]


def stop(at: Home, process: str) -> bool:
    """Stop one of our processes and its children, gently, then for good. False if it did not run."""
    found = _alive(at, process)
    if found:
        family = [found]
        with suppress(psutil.NoSuchProcess):
            family += found.children(recursive=True)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    at.pid_file(process).unlink(missing_ok=True)
    return found is not None


@contextmanager
def _starting_or_stopping(at: Home) -> Iterator[None]:
    """Only one process at a time looks for a server, starts one or stops it. The lock dies with its process."""
    at.prefect.mkdir(parents=True, exist_ok=True)
    with (at.prefect / "server.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure_server(at: Home, port: int | None, meanwhile: Callable[[], object] = lambda: None, or_any_port: bool = False) -> bool:
    """Our server answers; True if it had to be started.

    Raises GroundupError if the port is taken, or with the end of its log if it does not come up in time.
    """
    alive = _alive(at, "server")
    _address(at, port)
    if not alive:
        if not _free(_port()):
            if not or_any_port:
                raise GroundupError(f"port {_port()}", "is taken by another program", f"groundup up --port {_port() + 1}")
            _address(at, _any_port())
        _spawn(at, "server", ["flows.prefect_server", "server", "start", "--host", "127.0.0.1", "--port", str(_port())], port=_port())
    meanwhile()
    _wait_until_up(at)
    return not alive


def _spawn(at: Home, process: str, command: list[str], **record: int) -> None:
    at.prefect.mkdir(parents=True, exist_ok=True)
    with at.log(process).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    started = psutil.Process(child.pid).create_time()
    _write_record(at, process, {"pid": child.pid, "started": started, **record})


def _write_record(at: Home, process: str, record: dict[str, float]) -> None:
    new = at.pid_file(process).with_suffix(".new")
    new.write_text(json.dumps(record), "utf-8")
    new.replace(at.pid_file(process))


def _record(at: Home, process: str) -> dict[str, float]:
    """What is written of a process of ours; empty if there is none."""
    try:
        found: dict[str, float] = json.loads(at.pid_file(process).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _alive(at: Home, process: str) -> psutil.Process | None:
    """Our process, if it still runs; a recycled process id is told by its start time."""
    record = _record(at, process)
    if not record:
        return None
    try:
        found = psutil.Process(int(record["pid"]))
        same = abs(found.create_time() - record["started"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if same else None


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


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(at: Home) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_up():
        if not _alive(at, "server") or time.monotonic() > deadline:
            raise GroundupError(
                "the Prefect server",
                f"did not come up; its log ends:\n{_log_end(at, 'server')}",
                f"see {at.log('server')}, then groundup up",
            )
        time.sleep(0.1)


def _log_end(at: Home, process: str) -> str:
    return at.log(process).read_text("utf-8", "replace")[-1500:]


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise GroundupError(f"prefect {arguments[0]}", (done.stdout + done.stderr)[-1500:], "correct this and run groundup up again")
