"""Where things of a store are, in a form that means the same on every machine.

A worker gets addresses, never paths: the address of the store, and the key of an artifact or a
draft in it. Each machine resolves them to a folder of its own. For a store in a folder, this is
the folder itself, which all workers must share. For a store behind a URL, it is the machine's
cache.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from data_contracts.environment import folder_named
from data_contracts.store.identity import key_of


@dataclass(frozen=True)
class StoreAddress:
    """What a worker needs to reach a store.

    Attributes:
        location: The absolute path of the store's folder, or its fsspec URL.
        cache: The local folder for a URL; None for the default one of the machine.
    """

    location: str
    cache: str | None = None

    @property
    def folder(self) -> Path:
        """The folder on this machine that holds what is read from or written to the store."""
        if not is_url(self.location):
            return Path(self.location)
        return Path(self.cache) if self.cache else default_cache(self.location)


@dataclass(frozen=True)
class StoreKey:
    """An artifact or a draft of a store.

    Attributes:
        store: The store.
        key: The path below the store, with forward slashes: "objects/<type>/<id>" for an artifact,
            "drafts/<type>-<id>" for a draft.
    """

    store: StoreAddress
    key: str

    @property
    def folder(self) -> Path:
        """The folder on this machine."""
        return self.store.folder / self.key


@dataclass(frozen=True)
class ArtifactKey:
    """One making of an artifact. `open_artifact` opens it, on any machine that reaches the store.

    Attributes:
        store: The store that has it.
        artifact_type: Its type.
        id: Its id.
        digest: sha256 of its manifest, in hex.
    """

    store: StoreAddress
    artifact_type: str
    id: str
    digest: str

    def __str__(self) -> str:
        return key_of(self.artifact_type, self.id)


def in_folder(folder: Path) -> StoreKey:
    """Return the key of a draft in a folder of this machine, outside any store."""
    folder = folder.absolute()
    return StoreKey(StoreAddress(str(folder.parent)), folder.name)


def is_url(location: str) -> bool:
    """Return whether a store is behind an fsspec URL. `file://` is a folder."""
    return "://" in location and not location.startswith("file://")


def default_cache(url: str) -> Path:
    """Return the cache of this machine for the store at a URL."""
    return cache_base() / sha256(url.rstrip("/").encode()).hexdigest()[:16]


def cache_base() -> Path:
    """Return the folder of all caches: GROUNDUP_CACHE, or `groundup` among the user's caches.

    Raises:
        ConfigError: It is named after a home directory that does not exist.
    """
    base = os.environ.get("GROUNDUP_CACHE")
    if base:
        return folder_named("GROUNDUP_CACHE", base)
    users = os.environ.get("XDG_CACHE_HOME")
    variable = "XDG_CACHE_HOME" if users else "GROUNDUP_CACHE"
    return folder_named(variable, os.path.join(users or "~/.cache", "groundup"))
