"""Runs Prefect's server for its owner alone: `python -m flows.prefect_host.prefect_server`.

The server needs the API secret in PREFECT_SERVER_API_AUTH_STRING and does not start without it:
it cannot run open. It accepts requests for known host names only (known_hosts.py) and signs
browsers in (sign_in.py).

It also changes how Prefect begins transactions on SQLite, which allows one writer at a time.
Prefect opens most transactions as readers that become writers later. If another transaction has
written in between, SQLite refuses at once, whatever the time-out is. A run then waits for two
seconds before it asks again, and a person who submits the form sees "unknown error". A transaction
that takes the write lock when it begins waits for some milliseconds instead
(https://www.sqlite.org/lang_transaction.html). Prefect supports both ways; this server uses the
second.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from data_contracts import ConfigError
from flows.prefect_host import server_address
from flows.prefect_host.known_hosts import KnownHosts
from flows.prefect_host.server_address import Address
from flows.prefect_host.server_life import end_when_unused
from flows.prefect_host.sign_in import SignIn

SECRET = "PREFECT_SERVER_API_AUTH_STRING"


def main() -> None:
    """Serve on the socket, and under the host names, of the arguments until stopped."""
    secret = os.environ.get(SECRET)
    if not secret:
        sys.exit(
            f"{SECRET} is not set: the server would let everybody in. Start it with: groundup up"
        )
    address, listening = _parse_arguments()
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(sorted(address.origins))
    # A relative URL, because a page may be opened under any of the server's names.
    os.environ["PREFECT_SERVER_UI_API_URL"] = "/api"

    # Everything imported here stays in memory. Keeping it out of garbage collection makes the wait
    # for the server a fifth shorter.
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    gc.freeze()
    gc.enable()
    _begin_transactions_as_writer()
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


def _parse_arguments() -> tuple[Address, socket.socket]:
    parser = argparse.ArgumentParser(prog="python -m flows.prefect_host.prefect_server")
    parser.add_argument(
        "--socket", type=int, required=True, help="the file descriptor of a listening socket"
    )
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--url")
    arguments = parser.parse_args()
    try:
        address = server_address.wanted(arguments.host, arguments.port, arguments.url)
        return address, socket.socket(fileno=arguments.socket)
    except ConfigError as error:
        sys.exit(str(error))


def _begin_transactions_as_writer() -> None:
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE
    from prefect.server.database.configurations import AioSqliteConfiguration as SQLite

    @asynccontextmanager
    async def begin_as_writer(
        configuration: Any, session: Any, with_for_update: bool = True
    ) -> AsyncIterator[Any]:
        async with session.begin() as transaction:
            mode = SQLITE_BEGIN_MODE.set("IMMEDIATE")
            try:
                await session.connection()  # sends the BEGIN, which otherwise waits for a statement
            finally:
                # A session that Prefect opens before this one ends would take over the mode, and
                # wait for a lock that this one holds: pausing a work queue failed after a minute.
                SQLITE_BEGIN_MODE.reset(mode)
            yield transaction

    SQLite.begin_transaction = begin_as_writer  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    main()
