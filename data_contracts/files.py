"""Files of an artifact: which paths are safe, what a folder holds, and that it is on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.regular_files import open_regular

BATCH_BYTES = 64 << 20  # that a batch should take in memory at most, however long the rows are
MAX_NAME_BYTES = 255  # of one part of a path


def is_plain(path: str) -> bool:
    """Return whether a path is relative, with forward slashes, and stays inside its folder.

    It has no invisible characters either.
    """
    if not path.isprintable() or "\\" in path:
        return False
    return all(map(_is_plain_name, path.split("/")))


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and len(name.encode()) <= MAX_NAME_BYTES


def shown(path: str) -> str:
    """Return a path for a message: in quotes and escapes if a terminal could obey it."""
    return path if path.isprintable() else repr(path)


def matches(path: str, glob: str) -> bool:
    """Return whether a relative path falls under a glob.

    Unlike fnmatch's, `*` does not cross a slash.

    Args:
        path: A path with forward slashes.
        glob: A pattern with as many parts as the paths that it means.
    """
    parts, patterns = path.split("/"), glob.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def listing(folder: Path) -> list[str]:
    """Return relative paths of everything below `folder` except real folders, in order.

    Links are listed, and never followed.

    Raises:
        OSError: A folder cannot be read. By default, os.walk would skip it, and its files would
            seem to be missing.
    """
    found = []
    for parent, folders, files in os.walk(folder, onerror=_raised):
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in files + linked:
            found.append(Path(parent, name).relative_to(folder).as_posix())  # noqa: PERF401
    return sorted(found, key=lambda path: path.split("/"))


def _raised(error: OSError) -> None:
    raise error


def is_file(path: Path) -> bool:
    """Return whether `path` is a regular file, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Return when the file, or the list of names in the folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def batches(
    file: pq.ParquetFile, rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `rows` rows, and fewer if a batch would take more than 64 MB.

    No batch crosses a row group. A writer limits row groups to 32 MB of memory. Their size in the
    file does not show this: a text that is repeated is stored once.

    Args:
        file: The open file.
        rows: Rows of a batch at most.
        columns: The columns to read; None for all.
    """
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        fitting = group.num_rows * BATCH_BYTES // max(group.total_byte_size, 1)
        batch_rows = max(1, min(rows, fitting))
        yield from file.iter_batches(batch_rows, row_groups=[number], columns=columns)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    A link, a pipe or a device is never opened: reading one may not end.

    Raises:
        ValueError: It is not a regular file, or it has more than `max_bytes` bytes.
        OSError: It cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("it is a link or a device, not a file")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return data
