"""`groundup up` and `groundup down`: a Prefect server, its deployments and one worker, for this folder and its owner alone.

A Prefect that the user already has (PREFECT_API_URL is set) is respected: then only deployments and a worker are added.
"""

from __future__ import annotations

import fcntl
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from data_contracts import ConfigError, GroundupError
from flows import private_home
from flows.home import Home, writing
from flows.prefect_host import api_secret, processes, server_address, sign_in
from flows.prefect_host.server_address import Address

POOL = WORKER = "groundup"
WAIT_S = 120


def environment(at: Home, address: Address | None = None) -> dict[str, str]:
    """Settings for every process that speaks to Prefect. Must be in os.environ before prefect is imported.

    Telemetry is off: it would fail and complain on machines without a way out. Our server wants the API secret, and a
    token for changes (CSRF protection). A Prefect that the user already has gets neither: its credentials are the user's.
    """
    settings = {
        "PREFECT_HOME": str(at.prefect),
        "PREFECT_PROFILES_PATH": str(
            at.prefect / "profiles.toml"
        ),  # else a file of the folder may name another
        "PYTHONSAFEPATH": "1",  # nothing is imported from the folder that somebody works in
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
        return settings | {"PREFECT_API_URL": given.rstrip("/")} | _proxies()
    chosen = _recorded(at) or address or server_address.wanted(None, None, None)
    secret = api_secret.read_or_make(at)
    settings["PREFECT_API_URL"] = chosen.api_url
    settings["PREFECT_API_AUTH_STRING"] = settings["PREFECT_SERVER_API_AUTH_STRING"] = secret
    return settings | _proxies(chosen.local_host)


def import_prefect(at: Home, module: str) -> None:
    """Import Prefect and `module`, which uses it, in a folder of ours.

    Prefect reads settings from `.env`, `prefect.toml` and `pyproject.toml` of the folder in which it is imported, and some of them
    run code: a folder of a stranger, e.g. a cloned repository, must not decide them.
    """
    with writing(at):
        private_home.prepare(at)
    with chdir(at.prefect):
        import_module("prefect.main")
        import_module(module)


def _proxies(ours: str = server_address.LOOPBACK) -> dict[str, str]:
    """The proxies in use, if any, without our server, as variables: the system's own on macOS reach httpx without their exceptions."""
    proxies = urllib.request.getproxies()
    direct = proxies.pop("no", "")
    if not proxies or direct == "*":
        return {}
    local = ["127.0.0.1", "localhost", ours]
    direct = ",".join(dict.fromkeys([*filter(None, direct.split(",")), *local]))
    return {f"{scheme}_proxy": url for scheme, url in proxies.items()} | {
        "no_proxy": direct,
        "NO_PROXY": direct,
    }


def ui_url() -> str:
    return os.environ["PREFECT_API_URL"].removesuffix("/api")


def sign_in_address(at: Home) -> str:
    """An address of the UI that signs a browser in, once, if the server is ours; else the UI's own."""
    address = _recorded(at)
    if address is None or os.environ["PREFECT_API_URL"] != address.api_url:
        return ui_url()
    return sign_in.new_address(address, api_secret.read_or_make(at))


def is_up(url: str | None = None) -> bool:
    """True if a Prefect API answers."""
    try:
        with urllib.request.urlopen(
            (url or os.environ["PREFECT_API_URL"]) + "/health", timeout=2
        ) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


@contextmanager
def running_server(at: Home, module: str) -> Iterator[bool]:
    """A server for the length of a run, unless ours is up already; gives whether it was started here.

    `module`, which uses Prefect, is imported while the server starts. A port that another program has is left to it.
    Runs that overlap share the server; the last to leave stops it, unless `up` has come meanwhile.
    """
    given = os.environ.get("PREFECT_API_URL")
    os.environ.update(environment(at))
    if given:
        _expect_answer()
        import_prefect(at, module)
        yield False
        return
    with _users(at) as users:
        try:
            with _starting_or_stopping(at):
                fcntl.flock(users, fcntl.LOCK_SH)
                usual = server_address.wanted(None, None, None)
                started_here = _ensure_server(at, usual, module, or_any_port=True)
            yield started_here
        finally:
            with _starting_or_stopping(at):
                fcntl.flock(users, fcntl.LOCK_UN)
                if not _in_use(at) and not processes.record_of(at, "server").get("kept"):
                    processes.stop(at, "server")


def up(
    at: Home,
    port: int | None = None,
    at_once: int | None = None,
    host: str | None = None,
    url: str | None = None,
) -> str:
    """Server, work pool, deployments, worker. Running it again repairs what is missing. Returns an address that signs a browser in.

    at_once: how many runs the worker does at a time, by default 1: two that train on the same cores take longer than one after the other.
    host, url: where it listens and what a reverse proxy calls it, if not 127.0.0.1 and nothing; see Address.
    Raises GroundupError if the port is taken, or if what already runs was started with other arguments.
    """
    with _starting_or_stopping(at):
        ran = [process for process in processes.PROCESSES if processes.alive(at, process)]
        try:
            return _up(at, {"--port": port, "--host": host, "--url": url}, at_once)
        except BaseException:  # nothing is left half started, by Ctrl-C either
            for process in processes.PROCESSES:
                if process not in ran:
                    processes.stop(at, process)
            raise


def _up(at: Home, options: dict[str, Any], at_once: int | None) -> str:
    given = os.environ.get("PREFECT_API_URL")
    address = _asked_address(at, options)
    os.environ.update(environment(at, address))
    if given:
        _expect_answer()
        import_prefect(at, "flows.prefect_host.deployments")
    else:
        _ensure_server(at, address, "flows.prefect_host.deployments")
    from flows.prefect_host import (
        deployments,
    )  # not before the server is chosen: prefect reads its settings when it is imported

    if not (given or processes.alive(at, "worker") or _in_use(at)):
        deployments.tell_lost_runs()
    deployments.deploy(whole_server=not given)
    _ensure_worker(at, at_once, deployments.last_heartbeat)
    if not given:
        processes.write_record(at, "server", processes.record_of(at, "server") | {"kept": True})
    return sign_in_address(at)


def _asked_address(at: Home, options: dict[str, Any]) -> Address:
    """Where the server is or shall be.

    Raises:
        GroundupError: a server already runs, and not there; or no server may run there.
    """
    asked = [option for option, value in options.items() if value is not None]
    if asked and os.environ.get("PREFECT_API_URL"):
        why = "says where our own server is; with PREFECT_API_URL there is none"
        raise ConfigError(" ".join(asked), why, "leave it out, or unset PREFECT_API_URL")
    address = server_address.wanted(options["--host"], options["--port"], options["--url"])
    running = _recorded(at)
    if running is None:
        return address
    for option in asked:
        value = options[option]
        found = getattr(running, option.removeprefix("--"))
        if found != getattr(address, option.removeprefix("--")):
            why = f"groundup is up on {option.removeprefix('--')} {found}"
            raise GroundupError(f"{option} {value}", why, "groundup down, then groundup up again")
    return running


def down(at: Home) -> str:
    """Stop worker and server, and say so. A server that a run from the shell still uses is left to it."""
    if not at.prefect.exists():
        return "nothing was up"
    with _starting_or_stopping(at):
        if processes.alive(at, "server") and _in_use(at):
            told = "stopped worker; " if processes.stop(at, "worker") else ""
            processes.write_record(
                at, "server", processes.record_of(at, "server") | {"kept": False}
            )
            return f"{told}a run still uses the server, and will stop it"
        stopped = [process for process in processes.PROCESSES if processes.stop(at, process)]
        return f"stopped {' and '.join(stopped)}" if stopped else "nothing was up"


@contextmanager
def _starting_or_stopping(at: Home) -> Iterator[None]:
    """Only one process at a time looks for a server, starts one or stops it. The lock dies with its process."""
    with writing(at):
        private_home.prepare(at)
        lock = (at.prefect / "server.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _users(at: Home) -> TextIO:
    """The file of which every run from the shell holds a shared lock."""
    with writing(at):
        private_home.prepare(at)
        return (at.prefect / "server.users").open("a")


def _in_use(at: Home) -> bool:
    with _users(at) as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _expect_answer() -> None:
    if not is_up():
        raise GroundupError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']}",
            "does not answer",
            "start it, or unset PREFECT_API_URL",
        )


def _ensure_server(at: Home, address: Address, module: str, or_any_port: bool = False) -> bool:
    """Our server answers, and `module` is imported; True if the server had to be started.

    Raises GroundupError if the port is taken, or with the end of its log if it does not come up in time.
    """
    alive = processes.alive(at, "server")
    if alive and _recorded(at) is None:
        why = "was started by an older groundup and lets everybody in"
        raise GroundupError("the server that runs", why, "groundup down, then groundup up again")
    _point_at(at, address)
    if not alive:
        _start_server(at, address, or_any_port)
    import_prefect(at, module)
    _wait_for(at, "server", is_up)
    return not alive


def _start_server(at: Home, address: Address, or_any_port: bool) -> None:
    """Start a server on a socket that listens already: no other user can take the port in between."""
    processes.stop(at, "worker")  # of a server that was killed
    api_secret.forget(
        at
    )  # whoever had the port meanwhile may have been sent it, by a browser's open tab for instance
    listening, address = server_address.listen(address, or_any_port)
    with listening:
        _point_at(at, address)
        command = [
            "flows.prefect_host.prefect_server",
            "--socket",
            str(listening.fileno()),
            *address.options(),
        ]
        processes.spawn(at, "server", command, [listening.fileno()], **address.as_record())


def _ensure_worker(at: Home, at_once: int | None, last_heartbeat: Callable[[], object]) -> None:
    """A worker that the server has heard of. Raises GroundupError if the one that runs is not the one wanted."""
    wanted: dict[str, Any] = {
        "at_once": at_once or 1,
        "url": os.environ["PREFECT_API_URL"],
        "store": at.store,
    }
    if processes.alive(at, "worker"):
        record = processes.record_of(at, "worker")
        told = {
            "at_once": "does {} at once" if at_once else "",
            "url": "asks {} for work",
            "store": "works on the store {}",
        }
        for key, text in told.items():
            if text and record[key] != wanted[key]:
                why = f"the worker that runs {text.format(record[key])}, not {wanted[key]}"
                raise GroundupError("groundup up", why, "groundup down, then groundup up again")
        return
    before = last_heartbeat()
    server = processes.alive(at, "server")
    command = [
        "flows.prefect_host.prefect_worker",
        POOL,
        WORKER,
        str(wanted["at_once"]),
        *([str(server.pid)] if server else []),
    ]
    processes.spawn(at, "worker", command, **wanted)
    _wait_for(at, "worker", lambda: last_heartbeat() != before)


def _recorded(at: Home) -> Address | None:
    """Where our server runs, if it does, and if it is one that wants the secret."""
    record = processes.record_of(at, "server")
    if "host" not in record or not processes.alive(at, "server"):
        return None
    return Address(record["host"], record["port"], record["url"])


def _point_at(at: Home, address: Address) -> None:
    """Point this process, and what it starts, at our server: where it runs, else at `address`."""
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(environment(at, address))


def _wait_for(at: Home, process: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not ready():
        if not processes.alive(at, process) or time.monotonic() > deadline:
            raise GroundupError(
                f"the Prefect {process}",
                f"did not come up; its log ends:\n{processes.log_end(at, process)}",
                f"see {at.log(process)}, then groundup up",
            )
        time.sleep(0.1)
