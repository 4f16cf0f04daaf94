"""Reads untrusted files in a separate process with bounded memory, which can be killed at any time.

A file of a few kilobytes may unpack to terabytes, and a single call into a C library may allocate
all of that. So the code that parses such files runs in a separate process: `rows_apart(read, …)`
yields the items of the generator `read(…)`, and if reading fails, this process goes on.

`python -m stages.execution.apart FD` runs this file as the process that reads. It receives the work
over a socket pair, sends lists of items back, and ends when the other side closes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from data_contracts import GroundupError, InputError

Item = TypeVar("Item")

# Memory for reading, beside that of the interpreter and its libraries.
MEGABYTES = 224
POLL_S = 0.2  # how often the caller can look for a request to stop
_MAX_ITEMS, _MAX_BYTES = 256, 1 << 20  # in one message
# Each thread and each arena takes address space, Arrow's own allocators take gigabytes of it, and
# `datasets` would load torch.
_LEAN = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "USE_TORCH": "0",
}


def rows_apart(
    read: Callable[..., Iterator[Item | None]],
    *arguments: Any,
    what: Callable[[], str],
    megabytes: int = MEGABYTES,
    libraries: tuple[str, ...] = (),
) -> Generator[Item | None, None, None]:
    """Yield the items of `read(*arguments)`, which runs in a separate process.

    Items arrive in lists. If `read` yields None, the items that are waiting are sent at once. This
    generator yields None whenever nothing has arrived for POLL_S seconds, so that the caller can
    look for a request to stop. Closing the generator ends the process.

    Args:
        read: A generator function of a module. GroundupError and OSError that it raises are raised
            here.
        arguments: Its arguments, which must be picklable.
        what: Returns a name of what is read, for messages.
        megabytes: Memory for reading.
        libraries: Modules that `read` imports. Their memory does not count.

    Raises:
        GroundupError: `read` raised it.
        OSError: `read` raised it.
        InputError: Reading needs more memory, or killed its process.
    """
    connection, theirs = Pipe()
    command = [sys.executable, "-P", "-m", "stages.execution.apart", str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env=os.environ | _LEAN,
        start_new_session=True,
    )
    theirs.close()
    try:
        connection.send((read, arguments, megabytes, libraries))
        while True:
            if not connection.poll(POLL_S):
                yield None
                continue
            message = connection.recv()
            if message is None:
                return
            if isinstance(message, MemoryError):
                raise too_large(what(), f"needs more than {megabytes} MB of memory at once")
            if isinstance(message, Exception):
                raise message
            yield from message
    except (EOFError, ConnectionError):
        code = process.wait()
        raise too_large(what(), f"ended the process that read it (exit status {code})") from None
    finally:
        process.kill()
        process.wait()
        connection.close()


def too_large(what: str, why: str) -> InputError:
    """Return the error for a file that cannot be read within its bounds."""
    return InputError(
        what,
        f"cannot be read: it {why}; a file that expands this much is damaged or malicious",
        "split it into smaller rows or files, or leave it out",
    )


def _serve(connection: Connection) -> None:
    """Receive the work, then send the items or the error."""
    read, arguments, megabytes, libraries = connection.recv()
    for library in libraries:
        import_module(library)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    _bound_memory(megabytes << 20)
    try:
        _send_all(connection, read(*arguments))
    except (MemoryError, OSError, GroundupError) as error:
        connection.send(error.with_traceback(None))


def _send_all(connection: Connection, items: Iterator[Any | None]) -> None:
    waiting: list[Any] = []
    waiting_bytes = 0
    for item in items:
        if item is not None:
            waiting.append(item)
            waiting_bytes += _size(item)
        is_full = len(waiting) >= _MAX_ITEMS or waiting_bytes >= _MAX_BYTES
        if item is None or is_full:
            connection.send(waiting)
            waiting, waiting_bytes = [], 0
    connection.send(waiting)
    connection.send(None)


def _size(item: Any) -> int:
    """Estimate the bytes of an item in a message. Only large ones matter."""
    parts = item if isinstance(item, tuple) else (item,)
    return sum(len(part) for part in parts if isinstance(part, str | bytes))


def _bound_memory(more: int) -> None:
    """Let this process allocate `more` bytes in addition to what it has.

    Does nothing except on Linux, the only system that counts all memory under this limit.
    """
    if not sys.platform.startswith("linux"):
        return
    with open("/proc/self/statm") as pages:
        now = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


def _end_with(connection: Connection) -> None:
    """End this process when the other side closes. It sends nothing more, so only that is read."""
    with suppress(EOFError, OSError):
        connection.recv_bytes()
    os._exit(1)


if __name__ == "__main__":
    with suppress(ConnectionError):
        _serve(Connection(int(sys.argv[1])))
