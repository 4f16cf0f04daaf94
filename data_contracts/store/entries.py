"""Where the entries of refs are kept: in a folder of a store, and where release 0.1 kept them."""

from __future__ import annotations

import os
import uuid
from functools import cached_property
from pathlib import Path
from typing import Protocol

from data_contracts.files import flush, read_bounded
from data_contracts.store import links, repair

REFS = "refs"
REFS_OF_0_1 = "names"
MAX_ENTRY_BYTES = 16 << 20


class EntryStorage(Protocol):
    """A keeper of entries under keys with slashes: a folder here, a bucket in `remote.py`."""

    def children(self, key: str) -> list[str]:
        """Return the last parts of the keys directly below `key`, in order."""

    def read(self, key: str) -> bytes:
        """Return the entry. Raises OSError or ArtifactError if it cannot be read."""

    def create(self, key: str, data: bytes) -> bool:
        """Write the whole entry; or nothing, and return False, if there is one already."""

    def rename(self, key: str, to: str) -> str:
        """Keep the entry under another key. Returns its path in the store."""


class FolderStorage:
    """Entries in a folder of a store on the local disk. No link leads out of the store."""

    def __init__(self, root: Path):
        self.root = root

    def children(self, key: str) -> list[str]:
        folder = links.within(self.root.parent, self.root / key)
        with repair.reading(f"ref {key}" if key else f"refs in {self.root}", folder):
            if not folder.is_dir():
                return []
            return sorted(path.name for path in folder.iterdir())

    def read(self, key: str) -> bytes:
        return read_bounded(self._path(key), MAX_ENTRY_BYTES)

    def rename(self, key: str, to: str) -> str:
        with repair.reading(f"ref {key}", self.root / key):
            self._path(key).rename(self._path(to))
        return f"{self.root.name}/{to}"

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A hard link appears with all its bytes or not at all, and fails if the name is taken.
        temporary = path.parent / f".{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        flush(path.parent)
        return True

    def _path(self, key: str) -> Path:
        """Return the file of the entry. A link is never opened, but it can be set aside."""
        links.within(self.root.parent, (self.root / key).parent)
        return self.root / key


class StorageWithOlder:
    """Entries of two storages as one.

    New entries are written to the first. What an older release wrote is read from the second.
    """

    def __init__(self, current: EntryStorage, older: EntryStorage):
        self._current = current
        self._older = older

    def children(self, key: str) -> list[str]:
        found = self._current.children(key)
        if self._has_older:
            found = sorted({*found, *self._older.children(key)})
        return found

    def read(self, key: str) -> bytes:
        return self._holding(key).read(key)

    def rename(self, key: str, to: str) -> str:
        return self._holding(key).rename(key, to)

    def create(self, key: str, data: bytes) -> bool:
        if self._is_older(key):
            return False
        return self._current.create(key, data)

    def _holding(self, key: str) -> EntryStorage:
        return self._older if self._is_older(key) else self._current

    def _is_older(self, key: str) -> bool:
        folder, _, name = key.rpartition("/")
        return self._has_older and name in self._older.children(folder)

    @cached_property
    def _has_older(self) -> bool:
        return bool(self._older.children(""))
