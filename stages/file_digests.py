"""sha256 of the user's files, cached between runs: a preview must not read terabytes each time.

An entry is valid while device, inode, size, mtime and ctime of the file are the same; every write
changes ctime. A file that was changed less than MIN_AGE_NS ago is hashed but not cached, because a
second write within one tick of the file system's clock would leave no trace. The cache is
sha256.sqlite under $GROUNDUP_CACHE or ~/.cache/groundup, and can be deleted.
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
from data_contracts.store.address import cache_base
from stages.execution.cores import cores

MIN_AGE_NS = 2 * 10**9  # the coarsest clock of a file system
PIECE = 4 << 20  # bytes
SAVE_SECONDS = 5  # a kill loses at most this much work


def file_digests(paths: Iterable[Path], setting: str) -> dict[Path, str]:
    """Return the sha256 of each file, in hex.

    Args:
        paths: The files.
        setting: The setting that names them, for messages.

    Raises:
        InputError: A file cannot be read.
    """
    try:
        return _digests(paths)
    except OSError as error:
        raise InputError(
            f"{setting}: {error.filename}",
            f"cannot be read: {error.strerror}",
            f"{repair_of(error)}, or correct {setting}",
        ) from None


def repair_of(error: OSError) -> str:
    """Return what to do about a path that cannot be read as a plain file."""
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
    cutoff = time.time_ns() - MIN_AGE_NS
    states = {path: _state(path) for path in paths}
    with closing(_open_cache()) as cache:
        digests: dict[Path, str] = {}
        for path, (state, _) in states.items():
            known = _recall(cache, path, state)
            if known:
                digests[path] = known
        new = [path for path in states if path not in digests]
        fresh: list[tuple[bytes, str, str]] = []
        saved = time.monotonic()
        stopped = threading.Event()
        try:
            # Hashing releases the interpreter lock, so threads are enough.
            with ThreadPoolExecutor(min(8, cores())) as pool, _set_at_the_end(stopped):
                hashed = pool.map(lambda path: _sha256(path, stopped), new)
                for path, found in zip(new, hashed, strict=True):
                    digests[path] = found
                    state, changed = states[path]
                    if changed < cutoff and _state(path) == states[path]:
                        fresh.append((_key(path), state, found))
                    if time.monotonic() > saved + SAVE_SECONDS:
                        _remember(cache, fresh)
                        fresh, saved = [], time.monotonic()
        finally:
            _remember(cache, fresh)
    return {path: digests[path] for path in states}


def _state(path: Path) -> tuple[str, int]:
    """Return what changes with the file, and when it last changed, in nanoseconds."""
    check_regular(path)
    found = path.stat()
    state = f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    return state, max(found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def _set_at_the_end(stopped: threading.Event) -> Iterator[None]:
    """Set the event however the block ends.

    A pool waits for its threads, and a file of terabytes would delay the reaction to a signal.
    """
    try:
        yield
    finally:
        stopped.set()


def _sha256(path: Path, stopped: threading.Event) -> str:
    """Return the digest of the file; of a part of it, which nobody uses, once `stopped` is set."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while not stopped.is_set():
                piece = file.read(PIECE)
                if not piece:
                    break
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        error.filename = error.filename or str(path)  # a disk error while reading has no name
        raise


def _open_cache() -> sqlite3.Connection:
    folder = cache_base()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _connect(str(folder / "sha256.sqlite"))
    except (OSError, sqlite3.Error):  # no writable home, or a damaged cache: work without one
        return _connect(":memory:")


def _connect(database: str) -> sqlite3.Connection:
    cache = sqlite3.connect(database, timeout=60)
    cache.execute(
        "CREATE TABLE IF NOT EXISTS digests"
        " (path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)"
    )
    return cache


def _recall(cache: sqlite3.Connection, path: Path, state: str) -> str | None:
    row = cache.execute(
        "SELECT sha256 FROM digests WHERE path = ? AND state = ?", (_key(path), state)
    ).fetchone()
    return row[0] if row else None


def _remember(cache: sqlite3.Connection, entries: list[tuple[bytes, str, str]]) -> None:
    with suppress(sqlite3.Error), cache:  # a full disk only costs the next run its time
        cache.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", entries)


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())
