"""`python -m flows.prefect_host.prefect_server`: Prefect's server for its owner alone, with one repair on SQLite.

It wants the API secret in PREFECT_SERVER_API_AUTH_STRING and does not start without: there is no
way to run it open. It answers under its own names only (known_hosts.py) and signs browsers in
(sign_in.py).

SQLite has one writer. Prefect opens most transactions as readers that become writers later; if another has written in
between, SQLite refuses at once, whatever the time-out. A run then waits two seconds before it asks again, and a person who
submits the form reads "unknown error". A transaction that asks for the writer's lock when it begins waits its turn
instead, some milliseconds: https://www.sqlite.org/lang_transaction.html. Prefect knows both ways; here it takes the second.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

from data_contracts import ConfigError
from flows.prefect_host import server_address
from flows.prefect_host.known_hosts import KnownHosts
from flows.prefect_host.server_address import Address
from flows.prefect_host.server_life import end_when_unused
from flows.prefect_host.sign_in import SignIn

SECRET = "PREFECT_SERVER_API_AUTH_STRING"


def main() -> None:
    """The server on the socket, and under the names, that the arguments give, until it is stopped."""
    secret = os.environ.get(SECRET)
    if not secret:
        sys.exit(
            f"{SECRET} is not set: the server would let everybody in. Start it with: groundup up"
        )
    address, listening = _asked()
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(sorted(address.origins))
    os.environ["PREFECT_SERVER_UI_API_URL"] = "/api"  # on whichever of our names a page was opened

    gc.disable()  # all that is imported stays; without the search for garbage in it runs wait a fifth less for their server
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    gc.freeze()
    gc.enable()
    _begin_as_writer()
    end_when_unused()
    settings = get_current_settings().server
    config = uvicorn.Config(
        KnownHosts(SignIn(create_app(final=True), secret), address),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )
    uvicorn.Server(config).run(sockets=[listening])


def _asked() -> tuple[Address, socket.socket]:
    parser = argparse.ArgumentParser(prog="python -m flows.prefect_host.prefect_server")
    parser.add_argument(
        "--socket", type=int, required=True, help="the file descriptor of a socket that listens"
    )
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--url")
    asked = parser.parse_args()
    try:
        return server_address.wanted(asked.host, asked.port, asked.url), socket.socket(
            fileno=asked.socket
        )
    except ConfigError as error:
        sys.exit(str(error))


def _begin_as_writer() -> None:
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_as_writer(
        configuration: Any, session: Any, with_for_update: bool = True
    ) -> AbstractAsyncContextManager[Any]:
        return begin(configuration, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_as_writer  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    main()
