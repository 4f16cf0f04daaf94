"""Entries and files under one fsspec URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from data_contracts.errors import ArtifactError, ConfigError, GroundupError
from data_contracts.store.disk import is_of_the_disk
from data_contracts.store.manifest import MAX_BYTES


class Bucket:
    """Entries under one URL. It is an `EntryStorage` of refs, and also moves files."""

    def __init__(self, url: str):
        """Refuse a URL that cannot be used or that holds credentials, with ConfigError."""
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                f"store {parts.scheme}://…",
                "its URL holds more than a bucket and a path (credentials do not belong there)",
                "give s3://bucket/prefix; credentials come from the environment or fsspec's "
                "configuration",
            )
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            fix = (
                "pip install 'groundup[s3]' for s3://; "
                "other schemes need the fsspec backend of that name"
            )
            raise ConfigError(f"store {self.url}", str(error), fix) from None

    def below(self, key: str) -> Bucket:
        """Return the entries below `key`."""
        return Bucket(f"{self.url}/{key}")

    def children(self, key: str) -> list[str]:
        """Return the last parts of the entries and folders directly below `key`, in order."""
        with self._reaching(key):
            try:
                found = self._fs.ls(self._path(key), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        names = set()
        for path in found:
            _, _, name = path.rstrip("/").rpartition("/")
            if path.rstrip("/") != self._path(key):
                names.add(name)
        return sorted(names)

    def sizes(self, key: str) -> dict[str, int]:
        """Return the bytes of every entry below `key`, by its path from there."""
        with self._reaching(key):
            try:
                found = self._fs.find(self._path(key), detail=True)
            except FileNotFoundError:
                return {}
        start = self._path(key) + "/"
        return {path.removeprefix(start): int(entry["size"]) for path, entry in found.items()}

    def find(self, key: str, max_bytes: int = MAX_BYTES) -> bytes | None:
        """Return the entry, or None if there is none.

        Raises:
            ValueError: It has more than `max_bytes` bytes.
        """
        path = self._path(key)
        with self._reaching(key):
            try:
                size = self._fs.size(path)
                data: bytes | None = self._fs.cat_file(path) if size <= max_bytes else None
            except FileNotFoundError:
                return None
        if data is None:
            raise ValueError(f"it has more than {max_bytes:,} bytes")
        return data

    def read(self, key: str) -> bytes:
        """Return the entry. Raises ArtifactError if there is none."""
        data = self.find(key)
        if data is None:
            fix = "run the command again: another process may have removed it"
            raise ArtifactError(f"{self.url}/{key}", "is gone", fix)
        return data

    def create(self, key: str, data: bytes) -> bool:
        """Write the entry unless there is one. Returns False if there is.

        Args:
            key: Where, below the URL.
            data: The whole entry.
        """
        with self._reaching(key):
            try:
                self._fs.pipe_file(self._path(key), data, mode="create")
            except FileExistsError:
                return False
        return True

    def upload(self, files: Mapping[str, Path]) -> None:
        """Upload files, by key; as many at once as the backend allows."""
        with self._reaching("upload"):
            self._fs.put(list(map(str, files.values())), list(map(self._path, files)))

    def download(self, files: Mapping[str, Path]) -> None:
        """Download files, by key; as many at once as the backend allows."""
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._reaching("download"):
            self._fs.get(list(map(self._path, files)), list(map(str, files.values())))

    def remove(self, key: str) -> None:
        """Remove everything below `key`."""
        with self._reaching(key):
            self._fs.rm(self._path(key), recursive=True)

    def copy(self, keys: Mapping[str, str]) -> None:
        """Copy entries, each to another key, within the bucket."""
        with self._reaching("copy"):
            for key, to in keys.items():
                self._fs.copy(self._path(key), self._path(to))

    def rename(self, key: str, to: str) -> str:
        """Move an entry to another key. Returns its path in the store."""
        self.copy({key: to})
        with self._reaching(key):
            self._fs.rm_file(self._path(key))
        return f"{self.url.rpartition('/')[2]}/{to}"

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")

    @contextmanager
    def _reaching(self, key: str) -> Iterator[None]:
        """Turn whatever the backend raises into one error: every backend has its own."""
        try:
            yield
        except GroundupError:
            raise
        except Exception as error:
            if is_of_the_disk(error):
                raise
            raise ArtifactError(
                f"store {self.url}",
                f"{key or 'the store'} cannot be reached: {type(error).__name__}: {error}",
                "check that the bucket exists, the endpoint and the credentials "
                "(AWS_ENDPOINT_URL, AWS_PROFILE …), then run again",
            ) from error
