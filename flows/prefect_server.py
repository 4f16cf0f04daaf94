"""`python -m flows.prefect_server server start …`: Prefect's command line with one repair of its server on SQLite.

SQLite has one writer. Prefect opens most transactions as readers that become writers later; if another has written in
between, SQLite refuses at once, whatever the time-out. A run then waits two seconds before it asks again, and a person who
submits the form reads "unknown error". A transaction that asks for the writer's lock when it begins waits its turn
instead, some milliseconds: https://www.sqlite.org/lang_transaction.html. Prefect knows both ways; here it takes the second.
"""

from __future__ import annotations

import gc
from contextlib import AbstractAsyncContextManager
from typing import Any

from flows.server_life import end_when_unused


def main() -> None:
    """Prefect's command line, repaired."""
    gc.disable()  # all that is imported stays; without the search for garbage in it runs wait a fifth less for their server
    from prefect.cli import app
    from prefect.server.api import server  # noqa: F401  the command would import it later
    from prefect.server.database.configurations import AioSqliteConfiguration

    gc.freeze()
    gc.enable()
    begin = AioSqliteConfiguration.begin_transaction

    def begin_as_writer(configuration: Any, session: Any, with_for_update: bool = True) -> AbstractAsyncContextManager[Any]:
        return begin(configuration, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_as_writer  # type: ignore[assignment, method-assign]
    end_when_unused()
    app()


if __name__ == "__main__":
    main()
