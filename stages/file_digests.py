"""sha256 of the user's files, remembered from run to run: a preview must not read a corpus of terabytes each time.

An entry is trusted as long as device, inode, size, mtime and ctime of the file are those that it was hashed under; whoever writes to a
file changes its ctime. What was changed less than SETTLED ago is hashed and not remembered: a second write within one tick of the file
system's clock would leave no trace. Remembered is in sha256.sqlite under $GROUNDUP_CACHE or ~/.cache/groundup; it can be deleted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from data_contracts import InputError
from data_contracts.regular_files import check_regular, open_regular
from stages.execution.shards import cores

SETTLED = 2 * 10**9  # nanoseconds: the coarsest clock of a file system
PIECE = 4 << 20  # bytes
SAVE_SECONDS = 5  # what was hashed before a kill is lost for so long at most


def file_digests(paths: Iterable[Path], setting: str) -> dict[Path, str]:
    """Hex sha256 of each file. Raises InputError, with the setting that names it, for one that cannot be read."""
    try:
        return _digests(paths)
    except OSError as error:
        raise InputError(
            f"{setting}: {error.filename}",
            f"cannot be read: {error.strerror}",
            f"{repair_of(error)}, or correct {setting}",
        ) from None


def repair_of(error: OSError) -> str:
    """What to do about a path that cannot be read as a plain file."""
    if isinstance(error, IsADirectoryError):
        return "name the files in that folder"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "put the file there"
    if error.errno == errno.EINVAL:  # a pipe, a socket or a device; see regular_files
        return "write what it gives into a plain file, and name that file"
    if isinstance(error, PermissionError):
        return "make it readable for the user who runs this"
    return "replace the file"


def _digests(paths: Iterable[Path]) -> dict[Path, str]:
    settled = time.time_ns() - SETTLED
    states = {path: _state(path) for path in paths}
    with closing(_memory()) as memory:
        told = {
            path: found
            for path, (state, _) in states.items()
            if (found := _recall(memory, path, state))
        }
        new = [path for path in states if path not in told]
        fresh: list[tuple[bytes, str, str]] = []
        saved = time.monotonic()
        stopped = threading.Event()
        try:
            with (
                ThreadPoolExecutor(min(8, cores())) as pool,
                _set_at_the_end(stopped),
            ):  # hashing lets go of the interpreter
                hashed = pool.map(lambda path: _sha256(path, stopped), new)
                for path, found in zip(new, hashed, strict=True):
                    told[path] = found
                    state, changed = states[path]
                    if changed < settled and _state(path) == states[path]:
                        fresh.append((_key(path), state, found))
                    if time.monotonic() > saved + SAVE_SECONDS:
                        _remember(memory, fresh)
                        fresh, saved = [], time.monotonic()
        finally:
            _remember(memory, fresh)
    return {path: told[path] for path in states}


def _state(path: Path) -> tuple[str, int]:
    """What changes with the file, and when that was last."""
    check_regular(path)
    found = path.stat()
    state = f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    return state, max(found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def _set_at_the_end(stopped: threading.Event) -> Iterator[None]:
    """However the block ends: a pool waits for its threads, and a file of terabytes would keep a signal waiting."""
    try:
        yield
    finally:
        stopped.set()


def _sha256(path: Path, stopped: threading.Event) -> str:
    """Of what was read until `stopped` was set, which nobody asks for then."""
    made = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while not stopped.is_set() and (piece := file.read(PIECE)):
                made.update(piece)
        return made.hexdigest()
    except OSError as error:
        error.filename = error.filename or str(
            path
        )  # a fault of the disk while reading has no name
        raise


def _memory() -> sqlite3.Connection:
    folder = Path(
        os.environ.get("GROUNDUP_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "groundup"
    ).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _opened(str(folder / "sha256.sqlite"))
    except (
        OSError,
        sqlite3.Error,
    ):  # no home to write to, or a damaged file: hashing works without
        return _opened(":memory:")


def _opened(place: str) -> sqlite3.Connection:
    memory = sqlite3.connect(place, timeout=60)
    memory.execute(
        "CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)"
    )
    return memory


def _recall(memory: sqlite3.Connection, path: Path, state: str) -> str | None:
    row = memory.execute(
        "SELECT sha256 FROM digests WHERE path = ? AND state = ?", (_key(path), state)
    ).fetchone()
    return row[0] if row else None


def _remember(memory: sqlite3.Connection, entries: list[tuple[bytes, str, str]]) -> None:
    with suppress(sqlite3.Error), memory:  # a full disk only costs the next run its time
        memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", entries)


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())
