"""Faults of the disk, told as what they are: which file, how much was written, how much is free."""

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

_ROOM = "make room, or give another place with GROUNDUP_STORE"
_PLACE = "repair the place, or give another with GROUNDUP_STORE"
_FAULTS = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the quota is used up", _ROOM),
    errno.EIO: (
        "the disk reports an I/O error",
        "check the disk (dmesg), or give another place with GROUNDUP_STORE",
    ),
    errno.EROFS: ("the filesystem is read-only", _PLACE),
    errno.EACCES: ("permission is denied", _PLACE),
    errno.EPERM: ("permission is denied", _PLACE),
    errno.ENOTDIR: ("a file is where a folder should be", _PLACE),
    errno.EEXIST: ("a file is where a folder should be", _PLACE),
    errno.EISDIR: ("a folder is where a file should be", _PLACE),
}
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_THE_DISK = (
    *_FULL,
    errno.EIO,
    errno.EROFS,
)  # whatever file it was; the others are the store's only below its root


@contextmanager
def faults_told(what: str, root: Path, draft: Path | None = None) -> Iterator[None]:
    """Turns a disk fault, whichever library wrapped it, into one ArtifactError. A full disk gets the room of the draft's files back.

    A file outside `root` that may not be read (a user's input) is not the store's fault: such errors pass as they are.
    """
    try:
        yield
    except GroundupError:
        raise
    except Exception as error:
        number = _number(error)
        if number is None or not (number in _OF_THE_DISK or _below(root, error)):
            raise
        free = _free(root) / 1e6
        why, fix = _FAULTS[number]
        if number not in _OF_THE_DISK and _below(root, error):
            path = Path(os.fsdecode(error.filename))  # type: ignore[attr-defined]
            fix = (
                repair.in_the_way(path)
                if number in _IN_THE_WAY
                else repair.permission(path, write=True)
            )
        written = _written(draft) / 1e6 if draft else 0.0
        if draft and number in _FULL:
            links.delete(root, draft, ignore_errors=True)
        raise ArtifactError(
            what,
            f"{why} ({written:,.1f} MB of it were written, {free:,.1f} MB are free): {error}",
            f"{fix}; nothing was published, what the stage kept is kept, and a rerun continues",
        ) from error


def _number(error: BaseException | None) -> int | None:
    """The errno of the fault behind an error, or None. Not every library keeps it: some only print it."""
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


def _below(root: Path, error: BaseException) -> bool:
    name = getattr(error, "filename", None)
    return isinstance(name, str | os.PathLike) and Path(os.path.abspath(name)).is_relative_to(root)


def of_the_disk(error: BaseException) -> bool:
    """Whether the disk here is full or read-only, whatever was done with it. (EIO does not tell: backends of buckets raise it, too.)"""
    return _number(error) in (*_FULL, errno.EROFS)


def _written(draft: Path) -> int:
    """Bytes in a draft, as far as the disk still tells."""
    try:
        return sum((draft / name).lstat().st_size for name in listing(draft))
    except OSError:
        return 0


def _free(place: Path) -> int:
    """Bytes free where `place` is, or will be."""
    try:
        return shutil.disk_usage(place).free
    except OSError:  # not made yet, or closed to us
        return _free(place.parent) if place != place.parent else 0
