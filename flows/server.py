"""`groundup up` and `groundup down`: a Prefect server, its deployments and one worker, on loopback, for this folder.

A Prefect that the user already has (PREFECT_API_URL is set) is respected: then only deployments and a worker are added.
"""

from __future__ import annotations

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

from data_contracts import GroundupError
from flows.home import Home

REPOSITORY = Path(__file__).parent.parent
POOL = "local"
WAIT_S = 120


def environment(at: Home, port: int | None = None) -> dict[str, str]:
    """Settings for every process that speaks to Prefect. Must be in os.environ before prefect is imported.

    Telemetry is off: it would fail and complain on machines without a way out. CSRF protection is on, so that a page in
    the user's browser cannot start runs.
    """
    settings = {
        "PREFECT_HOME": str(at.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_PROMPT": "false",
        "GROUNDUP_HOME": str(at.path),
    }
    if "PREFECT_API_URL" not in os.environ:
        chosen = port or _recorded_port(at) or int(os.environ.get("GROUNDUP_PORT", "4200"))
        settings["PREFECT_API_URL"] = f"http://127.0.0.1:{chosen}/api"
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

    `meanwhile` is called while the server starts. A port that another program has is left to it.
    """
    given = "PREFECT_API_URL" in os.environ
    os.environ.update(environment(at))
    if (given or _alive(at, "server")) and is_up():
        meanwhile()
        yield False
        return
    if given:
        raise GroundupError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']}", "does not answer", "start it, or unset PREFECT_API_URL"
        )
    chosen = _port()
    start_server(at, chosen if _free(chosen) else _any_port(), meanwhile)
    try:
        yield True
    finally:
        stop(at, "server")


def start_server(at: Home, port: int | None = None, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Start the server in the background and return as soon as it answers.

    Raises GroundupError if the port is taken, or with the end of its log if it does not come up in time.
    """
    if port:
        os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(environment(at, port))
    chosen = _port()
    if not _free(chosen):
        raise GroundupError(f"port {chosen}", "is taken by another program", "groundup up --port 4201")
    _spawn(at, "server", ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(chosen)], port=chosen)
    meanwhile()
    _wait_until_up(at)


def up(at: Home, port: int | None = None, at_once: int = 1) -> str:
    """Server, work pool, deployments, worker. Running it again repairs what is missing. Returns the address of the UI.

    at_once: how many runs the worker does at a time. Two that train on the same cores take longer than one after the other.
    """
    given = "PREFECT_API_URL" in os.environ
    os.environ.update(environment(at, port))
    if not given and not _alive(at, "server"):
        start_server(at, port)
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect("deploy", "--prefect-file", str(REPOSITORY / "infra" / "prefect.yaml"), "--all")
    if not _alive(at, "worker"):
        command = ["prefect", "worker", "start", "--pool", POOL, "--name", "groundup", "--type", "process", "--limit", str(at_once)]
        _spawn(at, "worker", command)
    return ui_url()


def down(at: Home) -> list[str]:
    """Stop worker and server; returns which of them ran."""
    return [process for process in ("worker", "server") if stop(at, process)]


def stop(at: Home, process: str) -> bool:
    """Stop one of our processes and its children, gently, then for good. False if it did not run."""
    found = _alive(at, process)
    if found:
        family = [found, *found.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for member in alive:
            member.kill()
    at.pid_file(process).unlink(missing_ok=True)
    return found is not None


def _spawn(at: Home, process: str, command: list[str], **record: int) -> None:
    at.prefect.mkdir(parents=True, exist_ok=True)
    with at.log(process).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    started = psutil.Process(child.pid).create_time()
    at.pid_file(process).write_text(json.dumps({"pid": child.pid, "started": started, **record}), "utf-8")


def _alive(at: Home, process: str) -> psutil.Process | None:
    """Our process, if it still runs; a recycled process id is told by its start time."""
    if not at.pid_file(process).exists():
        return None
    record = json.loads(at.pid_file(process).read_text("utf-8"))
    try:
        found = psutil.Process(record["pid"])
        same = abs(found.create_time() - record["started"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if same else None


def _recorded_port(at: Home) -> int | None:
    return int(json.loads(at.pid_file("server").read_text("utf-8"))["port"]) if _alive(at, "server") else None


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
            told = at.log("server").read_text("utf-8", "replace")[-1500:]
            raise GroundupError(
                "the Prefect server", f"did not come up; its log ends:\n{told}", f"see {at.log('server')}, then groundup up"
            )
        time.sleep(0.1)


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise GroundupError(f"prefect {arguments[0]}", (done.stdout + done.stderr)[-1500:], "correct this and run groundup up again")
