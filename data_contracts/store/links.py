"""Where a store ends: no link in it leads groundup out of it, to write or to delete.

A store may be a copy that a stranger made, with links among its folders. The root of the store may
be a link; no path inside it may be one. Every write and every deletion checks that here first.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from data_contracts.errors import ArtifactError
from data_contracts.store import repair

_MAY_BLOCK = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)  # opening one may never return


def within(root: Path, path: Path) -> Path:
    """Return `path`, inside the store at `root`, if no step from `root` to it is a link.

    Args:
        root: The root of the store, which may itself be a link.
        path: A path below it.

    Raises:
        ArtifactError: One of them is a link; the message says where it leads.
    """
    step = root
    for part in path.relative_to(root).parts:
        step /= part
        # A step that may not be read is not a link here; using it fails with its own error.
        if os.path.islink(step):
            why = f"is a link to {os.readlink(step)}, and groundup follows no link in a store"
            raise _refused(step, why)
    return path


def require_plain(root: Path, folder: Path) -> None:
    """Refuse a folder of the store in which work would continue, if it holds unusual files.

    Raises:
        ArtifactError: It holds a link, a pipe or a device, or is a link itself.
    """
    within(root, folder)
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            within(root, path)
            if stat.S_IFMT(path.lstat().st_mode) in _MAY_BLOCK:
                raise _refused(path, "is a pipe or a device, and groundup opens none in a store")


def delete(root: Path, path: Path, ignore_errors: bool = False) -> None:
    """Delete a folder of the store with everything in it.

    If it is a link, only the link is deleted.

    Args:
        root: The root of the store.
        path: The folder.
        ignore_errors: Whether to leave what cannot be deleted.

    Raises:
        ArtifactError: A folder on the way to it is a link.
        OSError: It cannot be deleted, and `ignore_errors` is false.
    """
    within(root, path.parent)
    if os.path.islink(path):
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=ignore_errors)


def _refused(path: Path, why: str) -> ArtifactError:
    fix = f"move it away: {repair.move_aside(path)}   (or replace it with a real file or folder)"
    return ArtifactError(str(path), why, fix)
