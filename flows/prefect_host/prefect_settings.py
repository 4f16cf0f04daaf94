"""The environment variables with which Prefect runs, and its import under these settings."""

from __future__ import annotations

import os
import urllib.request
from contextlib import chdir
from importlib import import_module
from pathlib import Path

from flows import private_home
from flows.home import Home, writing
from flows.prefect_host import api_secret, processes, server_address
from flows.prefect_host.server_address import Address


def environment(at: Home, address: Address | None = None) -> dict[str, str]:
    """Return the settings for every process that uses Prefect.

    They must be in os.environ before Prefect is imported. Telemetry is off, because it fails with
    complaints on machines without internet access. Our server requires the API secret, and a token
    for changes (CSRF protection). A Prefect server that the user already has (PREFECT_API_URL is
    set) gets neither: its credentials are the user's.

    Args:
        at: The home.
        address: The address of our server if none runs yet; None for the usual one.
    """
    settings = {
        "PREFECT_HOME": str(at.prefect),
        # Without this, a file in the current folder may name another profiles file.
        "PREFECT_PROFILES_PATH": str(at.prefect / "profiles.toml"),
        "PYTHONSAFEPATH": "1",  # nothing is imported from the folder in which somebody works
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        # SQLite has one writer (see prefect_server.py), so Prefect writes its own records in
        # batches, every five seconds.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
        "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT": "3600",
        "PREFECT_CLI_PROMPT": "false",
        "GROUNDUP_FOLDER": str(Path.cwd()),
        "GROUNDUP_HOME": str(at.path),
        "GROUNDUP_STORE": at.store,
    }
    users_api_url = os.environ.get("PREFECT_API_URL")
    if users_api_url:
        settings["PREFECT_API_URL"] = users_api_url.rstrip("/")
        return settings | _proxies()
    chosen = recorded_address(at) or address or server_address.wanted(None, None, None)
    secret = api_secret.read_or_make(at)
    settings["PREFECT_API_URL"] = chosen.api_url
    settings["PREFECT_API_AUTH_STRING"] = secret
    settings["PREFECT_SERVER_API_AUTH_STRING"] = secret
    return settings | _proxies(chosen.local_host)


def import_prefect(at: Home, module: str) -> None:
    """Import Prefect, then `module`, which uses it, from a folder of ours.

    Prefect reads settings from `.env`, `prefect.toml` and `pyproject.toml` of the folder in which
    it is imported, and some of them run code. A foreign folder, such as a cloned repository, must
    not decide them.
    """
    with writing(at):
        private_home.prepare(at)
    with chdir(at.prefect):
        import_module("prefect.main")
        import_module(module)


def recorded_address(at: Home) -> Address | None:
    """Return the address of our server; None if it does not run or does not require the secret."""
    record = processes.record_of(at, "server")
    if "host" not in record or not processes.alive(at, "server"):
        return None
    return Address(record["host"], record["port"], record["url"])


def point_at(at: Home, address: Address) -> None:
    """Set this process's environment to our server: where it runs, or else at `address`."""
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(environment(at, address))


def ui_url() -> str:
    """Return the URL of the Prefect UI that this process uses."""
    return os.environ["PREFECT_API_URL"].removesuffix("/api")


def _proxies(server_host: str = server_address.LOOPBACK) -> dict[str, str]:
    """Return variables that name the proxies in use and exempt our server from them.

    httpx takes the system's proxies on macOS without their exceptions, so the variables repeat
    both.
    """
    proxies = urllib.request.getproxies()
    exceptions = proxies.pop("no", "")
    if not proxies or exceptions == "*":
        return {}
    hosts = [host for host in exceptions.split(",") if host]
    hosts += ["127.0.0.1", "localhost", server_host]
    no_proxy = ",".join(dict.fromkeys(hosts))
    variables = {f"{scheme}_proxy": url for scheme, url in proxies.items()}
    return variables | {"no_proxy": no_proxy, "NO_PROXY": no_proxy}
