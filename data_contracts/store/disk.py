"""Faults of the disk as one error: which file, how much was written, and how much is free."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import ArtifactError, GroundupError
from data_contracts.files import listing
from data_contracts.store import links, repair

_FREE_SPACE = "free some space, or give another folder with GROUNDUP_STORE"
_REPAIR = "repair the folder, or give another with GROUNDUP_STORE"
_CHECK = "check the disk (dmesg), or give another folder with GROUNDUP_STORE"
_FAULTS = {
    errno.ENOSPC: ("the disk is full", _FREE_SPACE),
    errno.EDQUOT: ("the quota is used up", _FREE_SPACE),
    errno.EIO: ("the disk reports an I/O error", _CHECK),
    errno.EROFS: ("the filesystem is read-only", _REPAIR),
    errno.EACCES: ("permission is denied", _REPAIR),
    errno.EPERM: ("permission is denied", _REPAIR),
    errno.ENOTDIR: ("a file is where a folder should be", _REPAIR),
    errno.EEXIST: ("a file is where a folder should be", _REPAIR),
    errno.EISDIR: ("a folder is where a file should be", _REPAIR),
}
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# These are faults of the disk whatever file it was. The others count only below the store's root.
_OF_THE_DISK = (*_FULL, errno.EIO, errno.EROFS)


@contextmanager
def disk_faults(what: str, root: Path, draft: Path | None = None) -> Iterator[None]:
    """Turn a disk fault, whichever library wrapped it, into one ArtifactError.

    If the disk is full, the draft is deleted to free its space. An error about a file outside
    `root` (a user's input, say) is not a fault of the store and passes unchanged.

    Args:
        what: What the error is about.
        root: The store.
        draft: The files that were being written, if any.

    Raises:
        ArtifactError: The disk has a fault.
    """
    try:
        yield
    except GroundupError:
        raise
    except Exception as error:
        number = _number(error)
        if number is None or not (number in _OF_THE_DISK or _is_below(root, error)):
            raise
        free = _free(root) / 1e6
        written = _written(draft) / 1e6 if draft else 0.0
        if draft and number in _FULL:
            links.delete(root, draft, ignore_errors=True)
        why, _ = _FAULTS[number]
        raise ArtifactError(
            what,
            f"{why} ({written:,.1f} MB of it were written, {free:,.1f} MB are free): {error}",
            f"{_advice(number, root, error)}; nothing was published, what the stage kept is kept, "
            "and a rerun continues",
        ) from error


def is_of_the_disk(error: BaseException) -> bool:
    """Return whether the local disk is full or read-only, whatever was done with it.

    EIO does not count: backends of buckets raise it, too.
    """
    return _number(error) in (*_FULL, errno.EROFS)


def _advice(number: int, root: Path, error: BaseException) -> str:
    _, fix = _FAULTS[number]
    if number in _OF_THE_DISK or not _is_below(root, error):
        return fix
    path = Path(os.fsdecode(error.filename))  # type: ignore[attr-defined]
    if number in _IN_THE_WAY:
        return repair.in_the_way(path)
    return repair.permission(path, write=True)


def _number(error: BaseException | None) -> int | None:
    """Return the errno behind an error, or None. Not every library keeps it: some only print it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FAULTS:
            return error.errno
        text = str(error)
        for number in _OF_THE_DISK:
            if os.strerror(number) in text or re.search(rf"(rrno|os error) {number}\b", text):
                return number
        if re.search(r"\d+ requested and \d+ written", text):  # numpy's tofile
            return errno.ENOSPC
        error = error.__cause__
    return None


def _is_below(root: Path, error: BaseException) -> bool:
    name = getattr(error, "filename", None)
    return isinstance(name, str | os.PathLike) and Path(os.path.abspath(name)).is_relative_to(root)


def _written(draft: Path) -> int:
    """Return the bytes in a draft, as far as the disk can still be read."""
    try:
        return sum((draft / name).lstat().st_size for name in listing(draft))
    except OSError:
        return 0


def _free(path: Path) -> int:
    """Free bytes on the filesystem that has `path`, or will have it."""
    try:
        return shutil.disk_usage(path).free
    except OSError:  # it does not exist yet, or may not be read
        return _free(path.parent) if path != path.parent else 0
