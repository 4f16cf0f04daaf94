"""Where a store ends: no link in it leads groundup out of it, to write or to delete.

A store may be a copy that a stranger made, with links among its folders. The root of the store may be a link; no path inside
it may be one. Every write to a store and every deletion checks that here first.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from data_contracts.errors import ArtifactError
from data_contracts.store import repair

_HOLD_UP = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)  # to open one may never end


def within(root: Path, path: Path) -> Path:
    """Return `path`, inside the store at `root`, if neither it nor a folder above it in the store is a link.

    Raises:
        ArtifactError: One of them is a link; the message says where it leads.
    """
    step = root
    for part in path.relative_to(root).parts:
        step /= part
        if os.path.islink(step):  # where it may not be looked at, its use fails with its own error
            raise _refused(
                step, f"is a link to {os.readlink(step)}, and groundup follows no link in a store"
            )
    return path


def require_plain(root: Path, folder: Path) -> None:
    """Refuse a folder of the store in which work would go on, if a link, a pipe or a device is in it.

    Raises:
        ArtifactError: There is one, or the folder is a link itself.
    """
    within(root, folder)
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            within(root, path)
            if stat.S_IFMT(path.lstat().st_mode) in _HOLD_UP:
                raise _refused(path, "is a pipe or a device, and groundup opens none in a store")


def delete(root: Path, path: Path, ignore_errors: bool = False) -> None:
    """Delete a folder of the store with all that is in it. Of a link the link goes, and what it leads to stays.

    Raises:
        ArtifactError: A folder on the way to it is a link.
        OSError: It cannot be deleted, and that is not to be ignored.
    """
    within(root, path.parent)
    if os.path.islink(path):
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=ignore_errors)


def _refused(path: Path, why: str) -> ArtifactError:
    fix = f"move it away: {repair.move_aside(path)}   (or put a true file or folder in its place)"
    return ArtifactError(str(path), why, fix)
