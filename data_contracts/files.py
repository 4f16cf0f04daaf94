"""Files of an artifact on disk: which paths are safe, what lies in a folder, what it holds, and that it is really written."""

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

from data_contracts.errors import ContractError
from data_contracts.regular_files import open_regular

CORRECT = "nothing was published; correct the stage or its settings and run it again"
BATCH_BYTES = 64 << 20  # most that a batch should take in memory, however long the rows are


def is_plain(path: str) -> bool:
    """True for a relative path with forward slashes that stays inside its folder and has no invisible characters."""
    parts = path.split("/")
    return (
        path.isprintable()
        and "\\" not in path
        and all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    )


def shown(path: str) -> str:
    """A path for a message: as it is, or in quotes and escapes if a terminal could obey it."""
    return path if path.isprintable() else repr(path)


def matches(path: str, glob: str) -> bool:
    """Whether a relative path falls under a glob. `*` does not cross a slash, unlike fnmatch's."""
    parts, patterns = path.split("/"), glob.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def listing(folder: Path) -> list[str]:
    """Relative paths of everything below `folder` but true folders, in order. Links are listed, never followed.

    Raises OSError if a folder cannot be read: os.walk left to itself would pass it over, and its files would be as if not there.
    """
    found = []
    for place, folders, files in os.walk(folder, onerror=_raised):
        inside = files + [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [Path(place, name).relative_to(folder).as_posix() for name in inside]
    return sorted(found, key=lambda path: path.split("/"))


def _raised(error: OSError) -> None:
    raise error


def is_file(path: Path) -> bool:
    """A regular file, not a link to one."""
    return path.is_file() and not path.is_symlink()


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
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
    """Batches of at most `rows` rows, fewer where rows are so long that a batch would pass 64 MB.

    None crosses a row group: a writer keeps those to 32 MB of what rows take in memory, which their size in the file does not tell
    (a text that is repeated is there once).
    """
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        most = max(1, min(rows, group.num_rows * BATCH_BYTES // max(group.total_byte_size, 1)))
        yield from file.iter_batches(most, row_groups=[number], columns=columns)


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes. A link, a pipe or a device is never opened: reading one may not end.

    Raises ValueError for what is no such file, OSError for one that cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("it is a link or a device, not a file")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data


def refusal(what: str, told: list[str], fix: str = CORRECT, most: int = 20) -> ContractError:
    """One error that tells every violation (at most `most`)."""
    shown = "\n  ".join(told[:most]) + (
        f"\n  … and {len(told) - most} more" if len(told) > most else ""
    )
    return ContractError(what, f"the contract does not allow what is there:\n  {shown}", fix)
