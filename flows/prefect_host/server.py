"""`groundup up` and `groundup down`: a Prefect server, its deployments and one worker.

They serve one home and its owner. If the user already has a Prefect server (PREFECT_API_URL is
set), only the deployments and the worker are added to it.
"""

from __future__ import annotations

import fcntl
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from data_contracts import ConfigError, GroundupError
from data_contracts.credentials import masked
from flows import private_home
from flows.cli.console import errors
from flows.home import Home
from flows.prefect_host import api_secret, prefect_files, processes, server_address, sign_in
from flows.prefect_host.prefect_settings import (
    environment,
    import_prefect,
    is_own_server,
    point_at,
    recorded_address,
    ui_url,
)
from flows.prefect_host.server_address import Address
from flows.prefect_host.server_locks import is_in_use, starting_or_stopping, users_file
from flows.prefect_host.uninterrupted import uninterrupted
from flows.prefect_host.work_pool import POOL, WORKER

START_TIMEOUT_S = 120
DEPLOYMENTS = "flows.prefect_host.deployments"
RESTART = "groundup down, then groundup up again"
FOREIGN_SERVER = (
    "our secret is not sent there, and whoever may use that server decides what the worker here"
    " runs"
)


def sign_in_address(home: Home) -> str:
    """Return a URL that signs a browser in, once; for a server that is not ours, the UI's URL."""
    address = recorded_address(home)
    if address is None or os.environ["PREFECT_API_URL"] != address.api_url:
        return ui_url()
    return sign_in.new_address(address, api_secret.read_or_make(home))


def is_up(url: str | None = None) -> bool:
    """Return whether a Prefect API answers at `url`, by default at PREFECT_API_URL."""
    health_url = (url or os.environ["PREFECT_API_URL"]) + "/health"
    try:
        with urllib.request.urlopen(health_url, timeout=2) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


@contextmanager
def running_server(home: Home, module: str) -> Iterator[bool]:
    """Provide a server for the length of a run.

    If another program has the port, the server takes a free one. Runs that overlap share the
    server. The last of them stops it, unless `groundup up` has kept it meanwhile.

    Args:
        home: The home.
        module: A module that uses Prefect. It is imported while the server starts.

    Yields:
        Whether the server was started here.
    """
    private_home.prepare(home)
    has_own_prefect = bool(os.environ.get("PREFECT_API_URL"))
    os.environ.update(environment(home))
    if has_own_prefect:
        _require_answer()
        import_prefect(home, module)
        yield False
        return
    with users_file(home) as users:
        try:
            with starting_or_stopping(home):
                _say(processes.recover(home))
                fcntl.flock(users, fcntl.LOCK_SH)
                usual = server_address.wanted(None, None, None)
                was_started = _ensure_server(home, usual, module, or_any_port=True)
            yield was_started
        finally:
            with starting_or_stopping(home):
                fcntl.flock(users, fcntl.LOCK_UN)
                is_kept = processes.record_of(home, "server").get("kept")
                if not is_in_use(home) and not is_kept:
                    processes.stop(home, "server")


def up(
    home: Home,
    port: int | None = None,
    at_once: int | None = None,
    host: str | None = None,
    url: str | None = None,
) -> str:
    """Start the server and the worker, and create the work pool and the deployments.

    Calling it again repairs what is missing.

    Args:
        home: The home.
        port: The port of the server.
        at_once: How many runs the worker does at a time, by default 1: two trainings on the same
            cores take longer than one after the other.
        host: Where the server listens, if not on 127.0.0.1; see Address.
        url: The URL under which a reverse proxy offers the server; see Address.

    Returns:
        A URL that signs a browser in.

    Raises:
        GroundupError: The port is taken, or what already runs was started with other arguments.
    """
    private_home.prepare(home)
    with starting_or_stopping(home):
        _say(processes.recover(home))
        already_up = [process for process in processes.PROCESSES if processes.alive(home, process)]
        try:
            return _up(home, {"--port": port, "--host": host, "--url": url}, at_once)
        except BaseException:  # a signal, too: nothing stays half started
            with uninterrupted():
                _stop_all_but(home, already_up)
            raise


def _stop_all_but(home: Home, already_up: list[str]) -> None:
    """Stop what this command has started.

    If the command is killed meanwhile, a server that nobody keeps ends by itself.
    """
    if "server" not in already_up:
        processes.keep(home, False)
    for process in processes.PROCESSES:
        if process not in already_up:
            processes.stop(home, process)


def _up(home: Home, options: dict[str, Any], at_once: int | None) -> str:
    has_own_prefect = bool(os.environ.get("PREFECT_API_URL"))
    address = _requested_address(home, options)
    os.environ.update(environment(home, address))
    _say(prefect_files.unread(home))
    if has_own_prefect:
        if not is_own_server(home, os.environ["PREFECT_API_URL"]):
            _say([f"using {ui_url()}, as PREFECT_API_URL says; {FOREIGN_SERVER}"])
        _require_answer()
        import_prefect(home, DEPLOYMENTS)
    else:
        _ensure_server(home, address, DEPLOYMENTS)
    # Prefect reads its settings when it is imported, so not before the server is chosen.
    from flows.prefect_host import deployments

    has_runs = has_own_prefect or processes.alive(home, "worker") or is_in_use(home)
    if not has_runs:
        deployments.mark_lost_runs_crashed()
    deployments.deploy(whole_server=not has_own_prefect)
    _ensure_worker(home, at_once, deployments.last_heartbeat)
    sign_in_url = sign_in_address(home)
    processes.keep(home, True)
    return sign_in_url


def _requested_address(home: Home, options: dict[str, Any]) -> Address:
    """Return the address where our server runs or will run.

    Args:
        home: The home.
        options: The values of --port, --host and --url; None where not given.

    Raises:
        GroundupError: Our server already runs at another address.
        ConfigError: No server may run at that address.
    """
    given = [option for option, value in options.items() if value is not None]
    if given and os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            " ".join(given),
            "says where our own server is; with PREFECT_API_URL there is none",
            "leave it out, or unset PREFECT_API_URL",
        )
    address = server_address.wanted(options["--host"], options["--port"], options["--url"])
    running = recorded_address(home)
    if running is None:
        return address
    for option in given:
        field = option.removeprefix("--")
        found = getattr(running, field)
        if found != getattr(address, field):
            raise GroundupError(
                f"{option} {options[option]}", f"groundup is up on {field} {found}", RESTART
            )
    return running


def down(home: Home) -> str:
    """Stop the worker and the server; a run from the shell keeps a server that it still uses.

    Returns:
        A sentence on what was stopped.
    """
    if not home.prefect.exists():
        return "nothing was up"
    with starting_or_stopping(home):
        _say(processes.recover(home))
        if processes.alive(home, "server") and is_in_use(home):
            prefix = "stopped worker; " if processes.stop(home, "worker") else ""
            processes.keep(home, False)
            return f"{prefix}a run still uses the server, and will stop it"
        stopped = [process for process in processes.PROCESSES if processes.stop(home, process)]
        return f"stopped {' and '.join(stopped)}" if stopped else "nothing was up"


def _say(lines: list[str]) -> None:
    for line in lines:
        errors.print(masked(line), markup=False)


def _require_answer() -> None:
    if not is_up():
        raise GroundupError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']}",
            "does not answer",
            "start it, or unset PREFECT_API_URL",
        )


def _ensure_server(home: Home, address: Address, module: str, or_any_port: bool = False) -> bool:
    """Start our server if it does not run, import `module`, and wait until the server answers.

    Returns:
        Whether the server had to be started.

    Raises:
        GroundupError: The port is taken, or the server does not come up in time. The message then
            has the end of its log.
    """
    alive = processes.alive(home, "server")
    if alive and recorded_address(home) is None:
        raise GroundupError(
            "the server that runs",
            "was started by an older groundup and lets everybody in",
            RESTART,
        )
    point_at(home, address)
    if not alive:
        _start_server(home, address, or_any_port)
    import_prefect(home, module)
    _wait_for(home, "server", is_up)
    return not alive


def _start_server(home: Home, address: Address, or_any_port: bool) -> None:
    """Start a server on a socket that listens already: no other user can take the port first."""
    processes.stop(home, "worker")  # of a server that was killed
    # Whoever has had the port since then may know the secret: a browser's open tab sends it.
    api_secret.forget(home)
    listening, address = server_address.listen(address, or_any_port)
    with listening:
        point_at(home, address)
        descriptor = listening.fileno()
        command = ["flows.prefect_host.prefect_server", "--socket", str(descriptor)]
        command += address.options()
        processes.spawn(home, "server", command, [descriptor])


def _ensure_worker(home: Home, at_once: int | None, last_heartbeat: Callable[[], object]) -> None:
    """Start our worker if it does not run, and wait until the server has a heartbeat of it.

    Raises:
        GroundupError: A worker runs that was started with other options.
    """
    wanted: dict[str, Any] = {
        "at_once": at_once or 1,
        "url": masked(os.environ["PREFECT_API_URL"]),
        "store": home.store,
    }
    if processes.alive(home, "worker"):
        compared = wanted if at_once else {key: wanted[key] for key in ("url", "store")}
        _require_same_worker(processes.record_of(home, "worker"), compared)
        return
    before = last_heartbeat()
    server = processes.alive(home, "server")
    command = ["flows.prefect_host.prefect_worker", POOL, WORKER, str(wanted["at_once"])]
    if server:
        command.append(str(server.pid))
    processes.spawn(home, "worker", command, **wanted)
    _wait_for(home, "worker", lambda: last_heartbeat() != before)


def _require_same_worker(record: dict[str, Any], wanted: dict[str, Any]) -> None:
    phrases = {
        "at_once": "does {} at once",
        "url": "asks {} for work",
        "store": "works on the store {}",
    }
    for key, value in wanted.items():
        if record.get(key) != value:
            found = phrases[key].format(record.get(key))
            raise GroundupError(
                "groundup up", f"the worker that runs {found}, not {value}", RESTART
            )


def _wait_for(home: Home, process: str, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_ready():
        if not processes.alive(home, process) or time.monotonic() > deadline:
            raise GroundupError(
                f"the Prefect {process}",
                f"did not come up; its log ends:\n{processes.log_end(home, process)}",
                f"see {home.log(process)}, then groundup up",
            )
        time.sleep(0.1)
