"""Reading files of strangers in a process of their own, whose memory is bounded and which can be killed at any moment.

A file of a few kilobytes may unpack to terabytes, and one call into a C library may take all of that. So whatever parses
such files runs apart: `rows_apart(read, …)` gives the items of the generator `read(…)`, and an end to it that is none of
this process. Run as `python -m stages.execution.apart FD`, this file is the process that reads. It speaks over a socket pair: the work
once, then lists of items. It ends when the other side closes.
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

MEGABYTES = (
    224  # that reading may take beside what the interpreter and its libraries take themselves
)
LOOK = 0.2  # seconds between looks at a wish to stop
_ITEMS, _BYTES = 256, 1 << 20  # what is sent at once
_LEAN = {  # each thread and each arena takes addresses, Arrow's own allocators take gigabytes; `datasets` would load torch
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
    """The items of `read(*arguments)`, a generator function of a module, which runs in a process of its own.

    Items come in lists; None that `read` gives sends off what is waiting. None comes out whenever nothing came for a moment,
    so that the caller can look for a wish to stop. Whoever stops taking items ends the process.

    Args:
        read: It may raise GroundupError and OSError, which are raised here.
        arguments: What can be pickled.
        what: What is being read, for messages.
        megabytes: Memory that reading may take.
        libraries: What `read` imports; their memory does not count.

    Raises:
        GroundupError: What `read` raises.
        OSError: What `read` raises.
        InputError: If reading takes more memory than that, or kills its process.
    """
    line, theirs = Pipe()
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
        line.send((read, arguments, megabytes, libraries))
        while True:
            if not line.poll(LOOK):
                yield None
                continue
            told = line.recv()
            if told is None:
                return
            if isinstance(told, MemoryError):
                raise too_large(what(), f"needs more than {megabytes} MB of memory at once")
            if isinstance(told, Exception):
                raise told
            yield from told
    except (EOFError, ConnectionError):
        code = process.wait()
        raise too_large(what(), f"ended the process that read it (exit status {code})") from None
    finally:
        process.kill()
        process.wait()
        line.close()


def too_large(what: str, why: str) -> InputError:
    """The refusal of a file that cannot be read within bounds."""
    fix = "split it into smaller rows or files, or leave it out"
    return InputError(
        what,
        f"cannot be read: it {why}; what unpacks to so much is damaged or made to do harm",
        fix,
    )


def _serve(line: Connection) -> None:
    read, arguments, megabytes, libraries = line.recv()
    for library in libraries:
        import_module(library)
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    _bound_memory(megabytes << 20)
    try:
        _send_all(line, read(*arguments))
    except (MemoryError, OSError, GroundupError) as error:
        line.send(error.with_traceback(None))


def _send_all(line: Connection, items: Iterator[Any | None]) -> None:
    waiting: list[Any] = []
    size = 0
    for item in items:
        if item is not None:
            waiting.append(item)
            size += _size(item)
        if item is None or len(waiting) >= _ITEMS or size >= _BYTES:
            line.send(waiting)
            waiting, size = [], 0
    line.send(waiting)
    line.send(None)


def _size(item: Any) -> int:
    """About how many bytes an item takes on the way; only large ones matter."""
    parts = item if isinstance(item, tuple) else (item,)
    return sum(len(part) for part in parts if isinstance(part, str | bytes))


def _bound_memory(more: int) -> None:
    """Lets this process take `more` bytes beside those that it has. Only Linux counts all memory under this limit."""
    if not sys.platform.startswith("linux"):
        return
    with open("/proc/self/statm") as pages:
        now = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


def _end_with(line: Connection) -> None:
    """The other side sends nothing more: what ends this wait is its end."""
    with suppress(EOFError, OSError):
        line.recv_bytes()
    os._exit(1)


if __name__ == "__main__":
    with suppress(ConnectionError):
        _serve(Connection(int(sys.argv[1])))
