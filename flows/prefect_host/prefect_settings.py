"""The environment variables with which Prefect runs, and its import under these settings."""

from __future__ import annotations

# Workers start in the folder in which this was first imported: not that of Prefect (see below).
import multiprocessing.process  # noqa: F401
import os
import urllib.request
from contextlib import chdir
from importlib import import_module
from pathlib import Path

import psutil

from data_contracts import ConfigError
from data_contracts.credentials import masked
from flows import private_home
from flows.home import Home, writing
from flows.prefect_host import api_secret, prefect_files, processes, server_address
from flows.prefect_host.server_address import Address


def environment(home: Home, address: Address | None = None) -> dict[str, str]:
    """Return the settings for every process that uses Prefect.

    They must be in os.environ before Prefect is imported. Telemetry is off, because it fails with
    complaints on machines without internet access. Our server requires the API secret, and a token
    for changes (CSRF protection). A Prefect server that the user already has (PREFECT_API_URL is
    set) gets neither: its credentials are the user's.

    Args:
        home: The home.
        address: The address of our server if none runs yet; None for the usual one.

    Raises:
        ConfigError: Our secret would be sent to a server that the environment names.
    """
    settings = {
        "PREFECT_HOME": str(home.prefect),
        **prefect_files.settings(),
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
        "GROUNDUP_HOME": str(home.path),
        "GROUNDUP_STORE": home.store,
    }
    users_api_url = os.environ.get("PREFECT_API_URL")
    if users_api_url:
        settings["PREFECT_API_URL"] = users_api_url.rstrip("/")
        _refuse_our_secret(home, settings["PREFECT_API_URL"])
        return settings | _proxies()
    chosen = recorded_address(home) or address or server_address.wanted(None, None, None)
    secret = api_secret.read_or_make(home)
    settings["PREFECT_API_URL"] = chosen.api_url
    settings["PREFECT_API_AUTH_STRING"] = secret
    settings["PREFECT_SERVER_API_AUTH_STRING"] = secret
    return settings | _proxies(chosen.local_host)


def import_prefect(home: Home, module: str) -> None:
    """Import Prefect, then `module`, which uses it, without settings of the current folder."""
    with writing(home):
        private_home.prepare(home)
    with chdir(prefect_files.package()):
        # Whatever is imported of Prefect first builds its settings, so this stands in here, too.
        prefect_files.ignore_those_of_folders()
        import_module("prefect.main")
        import_module(module)


def recorded_address(home: Home) -> Address | None:
    """Return the address of our server; None if it does not run or does not require the secret.

    The address is that of the process, whatever its record says: the secret is sent there.
    """
    found = processes.alive(home, "server")
    if found is None:
        return None
    try:
        return server_address.from_options(found.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return None


def is_own_server(home: Home, api_url: str) -> bool:
    """Return whether our server runs, and `api_url` is the URL of its API."""
    own = recorded_address(home)
    return own is not None and api_url.removesuffix("/api") in own.origins


def _refuse_our_secret(home: Home, users_api_url: str) -> None:
    """Keep the secret of our server from a server that the environment names.

    Raises:
        ConfigError: A variable that Prefect sends holds our secret, such as PREFECT_API_AUTH_STRING
            or PREFECT_CLIENT_CUSTOM_HEADERS, and PREFECT_API_URL is not our server.
    """
    sent = {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith("PREFECT_") and not name.upper().startswith("PREFECT_SERVER_")
    }
    holding = sorted(name for name, value in sent.items() if api_secret.is_held_by(home, value))
    if holding and not is_own_server(home, users_api_url):
        names = " and ".join(holding)
        raise ConfigError(
            f"PREFECT_API_URL={masked(users_api_url)}",
            f"is not the server of this home, and {names} would send it our secret",
            f"unset {names}, or PREFECT_API_URL as well to use our own server",
        )


def point_at(home: Home, address: Address) -> None:
    """Set this process's environment to our server: where it runs, or else at `address`."""
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(environment(home, address))


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
