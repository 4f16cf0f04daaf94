"""The commit protocol of a store on the local disk.

A stage writes into a draft on the same filesystem. The draft is checked and flushed, the manifest
is written last, and one rename makes the artifact appear. Killed at any moment, an artifact is
absent or whole. The lock on an id ends with the process that holds it (flock), so no clock decides.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import ArtifactError
from data_contracts.files import flush
from data_contracts.store import links
from data_contracts.store.disk import disk_faults
from data_contracts.store.manifest import MANIFEST


def prepare(root: Path, files: Path, objects: Path) -> None:
    """Make `files` an empty folder, and `objects` a folder on the same filesystem.

    This comes before the work: the rename at its end must not fail because of two filesystems.

    Args:
        root: The store.
        files: The folder of the draft that will be renamed.
        objects: The folder that it will be renamed into.

    Raises:
        ArtifactError: They lie on two filesystems, or a link leads out of the store.
    """
    links.within(root, objects)
    if os.path.lexists(links.within(root, files)):
        links.delete(root, files)
    for folder in (files, objects):
        folder.mkdir(parents=True, exist_ok=True)
    if objects.stat().st_dev != files.stat().st_dev:
        raise ArtifactError(
            f"store {root}",
            f"{objects} and {files} are on two filesystems",
            "keep the whole store on one filesystem: set GROUNDUP_STORE to a folder that is",
        )


def commit(root: Path, files: Path, target: Path, manifest: bytes) -> None:
    """Let a folder of finished files appear as the artifact at `target`, all at once.

    Args:
        root: The store.
        files: The folder of finished files.
        target: The folder of the artifact.
        manifest: What is written last.
    """
    with (files / MANIFEST).open("wb") as file:
        file.write(manifest)
        file.flush()
        os.fsync(file.fileno())
    folders = [path for path in files.rglob("*") if path.is_dir()]
    for folder in [*folders, files]:
        flush(folder)
    if target.exists():
        # A folder without a manifest: what remains of an artifact that a person took apart.
        links.delete(root, target)
    files.rename(target)
    for folder in (target.parent, target.parent.parent, root):
        flush(folder)


@contextmanager
def locked(root: Path, id: str) -> Iterator[None]:
    """Hold the lock on an artifact id of the store at `root`; wait while another process has it.

    Args:
        root: The store.
        id: The id of an artifact.

    Raises:
        ArtifactError: The filesystem has no locks, or the lock file cannot be opened.
    """
    folder = root / "locks"
    with disk_faults(f"lock in {root}", root):
        path = links.within(root, folder / id)
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
        handle = os.open(path, flags, 0o666)  # the umask decides who else may take the lock
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise ArtifactError(
                f"store {root}",
                f"its filesystem gives no lock: {error.strerror}",
                "name a folder on a filesystem with locks with GROUNDUP_STORE",
            ) from None
        yield
    finally:
        os.close(handle)
