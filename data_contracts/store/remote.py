"""A store behind any fsspec URL (`s3://bucket/prefix`), with a local folder as its cache.

Artifacts are made in the cache, under the same commit protocol, and sent file by file; the manifest goes last, by a
conditional put, so that of two machines one wins and the other takes the winner's. The files of an artifact lie under its content digest,
`objects/<artifact_type>/<id>/<content>/…`: no upload can ever touch what another manifest lists. To open an artifact takes its manifest only;
its files are fetched into the cache when somebody wants them, and compared with the manifest before they are used. Credentials come
from the environment or fsspec's own configuration.

Conditional puts are atomic on S3 (If-None-Match) and wherever the fsspec backend's `mode="create"` is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from data_contracts.contract import SHIPPED, Contracts
from data_contracts.errors import ArtifactError, ConfigError, GroundupError, make_again
from data_contracts.store import links, repair
from data_contracts.store.artifact import MANIFEST, Artifact, Manifest
from data_contracts.store.disk import faults_told, of_the_disk
from data_contracts.store.identity import Identity, is_key, key_of
from data_contracts.store.local import Make, Store
from data_contracts.store.manifest import MAX_BYTES
from data_contracts.store.refs import REFS, REFS_OF_0_1, Refs, StorageWithOlder
from data_contracts.store.removed import (
    REMOVED,
    absent,
    age,
    in_its_stead,
    kept,
    parse_removed,
    removed_name,
)

_MARK = "groundup-store"  # the one entry that every remote store has
_CONTENT_DIGITS = 16


def open_store(
    location: str | Path, cache: Path | None = None, contracts: Contracts = SHIPPED
) -> Store:
    """The store at a path or an fsspec URL. `cache` is for URLs; default: a folder of its own under $GROUNDUP_CACHE or ~/.cache/groundup.

    Raises ConfigError for a URL that cannot be used or that holds credentials.
    """
    text = str(location)
    if "://" not in text or text.startswith("file://"):
        return Store(text.removeprefix("file://"), contracts)
    if cache is None:
        cache = cache_base() / sha256(text.rstrip("/").encode()).hexdigest()[:16]
    return RemoteStore(text, cache, contracts)


def cache_base() -> Path:
    """Where the caches of stores behind URLs are: GROUNDUP_CACHE, or groundup in the user's own folder of caches."""
    base = (
        os.environ.get("GROUNDUP_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "groundup"
    )
    return Path(base).expanduser().resolve()


class Bucket:
    """Entries under one URL. Implements `refs.EntryStorage`; also uploads and downloads files."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                f"store {parts.scheme}://…",
                "its URL holds more than a bucket and a path (credentials do not belong there)",
                "give s3://bucket/prefix; credentials come from the environment or fsspec's configuration",
            )
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            fix = "pip install 'groundup[s3]' for s3://; other schemes need the fsspec backend of that name"
            raise ConfigError(f"store {self.url}", str(error), fix) from None

    def below(self, key: str) -> Bucket:
        return Bucket(f"{self.url}/{key}")

    def children(self, key: str) -> list[str]:
        """Last parts of the entries and folders directly below `key`."""
        with self._reached(key):
            try:
                found = self._fs.ls(self._at(key), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return sorted(
            {
                path.rstrip("/").rpartition("/")[2]
                for path in found
                if path.rstrip("/") != self._at(key)
            }
        )

    def sizes(self, key: str) -> dict[str, int]:
        """Bytes of every entry below `key`, by its path from there."""
        with self._reached(key):
            try:
                found = self._fs.find(self._at(key), detail=True)
            except FileNotFoundError:
                return {}
        return {
            path.removeprefix(self._at(key) + "/"): int(entry["size"])
            for path, entry in found.items()
        }

    def find(self, key: str, most: int = MAX_BYTES) -> bytes | None:
        """The entry, or None if there is none. Raises ValueError for one of more than `most` bytes."""
        with self._reached(key):
            try:
                size = self._fs.size(self._at(key))
                data: bytes | None = self._fs.cat_file(self._at(key)) if size <= most else None
            except FileNotFoundError:
                return None
        if data is None:
            raise ValueError(f"it has more than {most:,} bytes")
        return data

    def read(self, key: str) -> bytes:
        data = self.find(key)
        if data is None:
            raise ArtifactError(
                f"{self.url}/{key}",
                "is gone",
                "run the command again: another process may have removed it",
            )
        return data

    def create(self, key: str, data: bytes) -> bool:
        """Write the entry unless there is one; False if there is."""
        with self._reached(key):
            try:
                self._fs.pipe_file(self._at(key), data, mode="create")
            except FileExistsError:
                return False
        return True

    def upload(self, files: Mapping[str, Path]) -> None:
        """Files by key; as many at once as the backend likes."""
        with self._reached("upload"):
            self._fs.put([str(path) for path in files.values()], [self._at(key) for key in files])

    def download(self, files: Mapping[str, Path]) -> None:
        """Files by key; as many at once as the backend likes."""
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._reached("download"):
            self._fs.get([self._at(key) for key in files], [str(path) for path in files.values()])

    def remove(self, key: str) -> None:
        """Everything below `key`."""
        with self._reached(key):
            self._fs.rm(self._at(key), recursive=True)

    def copy(self, keys: Mapping[str, str]) -> None:
        """Entries, each to another key, within the bucket."""
        with self._reached("copy"):
            for key, to in keys.items():
                self._fs.copy(self._at(key), self._at(to))

    def rename(self, key: str, to: str) -> str:
        self.copy({key: to})
        with self._reached(key):
            self._fs.rm_file(self._at(key))
        return f"{self.url.rpartition('/')[2]}/{to}"

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")

    @contextmanager
    def _reached(self, key: str) -> Iterator[None]:
        """One named error for whatever the backend raises: every backend has its own."""
        try:
            yield
        except GroundupError:
            raise
        except Exception as error:
            if of_the_disk(error):
                raise
            raise ArtifactError(
                f"store {self.url}",
                f"{key or 'the store'} cannot be reached: {type(error).__name__}: {error}",
                "check that the bucket exists, the endpoint and the credentials (AWS_ENDPOINT_URL, AWS_PROFILE …), then run again",
            ) from error


class RemoteStore(Store):
    """A store in a bucket. `root` is the cache; what is only there does not exist."""

    def __init__(self, url: str, cache: Path, contracts: Contracts = SHIPPED):
        super().__init__(cache, contracts)
        self.cache = Store(cache, contracts)
        self.bucket = Bucket(url)
        self.refs = Refs(StorageWithOlder(self.bucket.below(REFS), self.bucket.below(REFS_OF_0_1)))
        self._proved = False

    @property
    def location(self) -> str:
        return self.bucket.url

    def has(self, artifact_type: str, id: str) -> bool:
        return self.bucket.find(_manifest(artifact_type, id)) is not None

    def ids(self) -> list[tuple[str, str]]:
        keys = [key.split("/") for key in self.bucket.sizes("objects")]
        found = [(parts[0], parts[1]) for parts in keys if len(parts) == 3 and parts[2] == MANIFEST]
        return sorted(key for key in found if is_key(*key))

    def holds(self, artifact_type: str, id: str) -> bool:
        return bool(self.bucket.sizes(f"objects/{key_of(artifact_type, id)}"))

    def _written(self, key: tuple[str, str]) -> bytes | None:
        try:
            return self.bucket.find(_manifest(*key))
        except ValueError:  # it is too long
            return None

    def open(self, artifact_type: str, id: str, verify: bool = True) -> Artifact:
        """The artifact. Its files are fetched when they are wanted, and then compared with the manifest whether `verify` or not."""
        try:
            data = self.bucket.find(_manifest(artifact_type, id))
            if data is None:
                raise ArtifactError(
                    f"artifact {artifact_type}/{id}", f"is not in {self.location}", make_again()
                )
            manifest = Manifest.parse(data)
            if (manifest.artifact_type, manifest.id) != (artifact_type, id):
                raise ValueError(f"it is that of {manifest.artifact_type}/{manifest.id}")
        except ValueError as error:
            raise ArtifactError(
                f"artifact {artifact_type}/{id} in {self.location}",
                f"its {MANIFEST} cannot be read: {error}",
                _repair(artifact_type, id),
            ) from None
        fetch, digest = partial(self._fetch, manifest, data), sha256(data).hexdigest()
        artifact = Artifact(self.path(artifact_type, id), manifest, digest, self.contracts, fetch)
        if verify:
            artifact.verify()
        return artifact

    def _naming(self, name: str) -> AbstractContextManager[None]:
        self._prove()
        return super()._naming(name)

    def publish(
        self,
        artifact_type: str,
        identity: Identity,
        inputs: Mapping[str, Artifact],
        settings: dict[str, Any],
        make: Make,
    ) -> tuple[Artifact, bool]:
        """As `Store.publish`. Two machines may both make the artifact; the first manifest to arrive counts for both."""
        self._prove()
        if self.has(artifact_type, identity.id):
            return self.open(artifact_type, identity.id, verify=False), False
        artifact, made = self.cache.publish(artifact_type, identity, inputs, settings, make)
        won = self._send(artifact)
        opened = self.open(artifact_type, identity.id, verify=False)
        return opened, won and made

    def _send(self, artifact: Artifact) -> bool:
        """Upload what is not there yet, the manifest last. False if another manifest is there already."""
        files = _files(artifact.manifest)
        there = self.bucket.sizes(
            files
        )  # whole, or absent: an object appears when its upload is complete
        missing = [
            entry for entry in artifact.manifest.files if there.get(entry.path) != entry.bytes
        ]
        self.bucket.upload(
            {f"{files}/{entry.path}": artifact.path / entry.path for entry in missing}
        )
        written = (artifact.path / MANIFEST).read_bytes()
        if self.bucket.create(_manifest(artifact.artifact_type, artifact.id), written):
            return True
        winner = Manifest.parse(self.bucket.read(_manifest(artifact.artifact_type, artifact.id)))
        if _files(winner) != files:
            self.bucket.remove(files)
        return False

    def _fetch(self, manifest: Manifest, data: bytes) -> None:
        """Have the files in the cache, if it has not got them or has another artifact of that id. data: the manifest as it is written."""
        cached = self.path(manifest.artifact_type, manifest.id)
        place = self.root / "drafts" / f"fetch-{manifest.artifact_type}-{manifest.id}"
        with (
            self.cache.locked(manifest.id),
            faults_told(f"{manifest.artifact_type} in {self.root}", self.root, place),
        ):
            if (cached / MANIFEST).is_file() and (cached / MANIFEST).read_bytes() == data:
                return
            links.delete(self.root, cached, ignore_errors=True)
            self.cache.clear(place, cached.parent)
            there = self.bucket.sizes(
                _files(manifest)
            )  # of what is not there, the verification tells
            wanted = [entry.path for entry in manifest.files if entry.path in there]
            self.bucket.download({f"{_files(manifest)}/{path}": place / path for path in wanted})
            try:
                Artifact(place, manifest, sha256(data).hexdigest(), self.contracts).verify()
            except ArtifactError as error:
                links.delete(self.root, place, ignore_errors=True)
                what = f"artifact {manifest.artifact_type}/{manifest.id} in {self.location}"
                raise ArtifactError(
                    what, error.why, _repair(manifest.artifact_type, manifest.id, manifest)
                ) from None
            self.cache.commit(place, manifest.artifact_type, manifest.id, data)

    def set_aside(self, artifact_type: str, id: str) -> str:
        """As `Store.set_aside`. The manifest goes first, so that the artifact is absent or whole; the copy in the cache goes, too."""
        key = key_of(artifact_type, id)
        entries = self.bucket.sizes(f"objects/{key}")
        if not entries:
            raise absent(artifact_type, id, self.location)
        to = f"{REMOVED}/{removed_name(artifact_type, id)}"
        self.bucket.copy({f"objects/{key}/{path}": f"{to}/{path}" for path in entries})
        if MANIFEST in entries:
            self.bucket.remove(f"objects/{key}/{MANIFEST}")
        if len(entries) > 1 or MANIFEST not in entries:
            self.bucket.remove(f"objects/{key}")
        if self.cache.holds(artifact_type, id):
            self.cache.set_aside(artifact_type, id)
        return f"{self.location}/{to}"

    def removed(self) -> list[str]:
        return sorted(
            (name for name in self.bucket.children(REMOVED) if parse_removed(name)), key=age
        )

    def bring_back(self, name: str) -> str:
        """As `Store.bring_back`. The manifest comes last, by a conditional put."""
        key = kept(name, self.removed())
        source, target = f"{REMOVED}/{name}", f"objects/{key_of(*key)}"
        if self.has(*key):
            raise in_its_stead(*key)
        entries = [path for path in self.bucket.sizes(source) if path != MANIFEST]
        self.bucket.copy({f"{source}/{path}": f"{target}/{path}" for path in entries})
        written = self.bucket.find(f"{source}/{MANIFEST}")
        if written is not None and not self.bucket.create(f"{target}/{MANIFEST}", written):
            raise in_its_stead(*key)
        self.bucket.remove(source)
        return f"{self.location}/{target}"

    def delete_removed(self, name: str) -> None:
        """As `Store.delete_removed`; what the cache keeps of the same artifact goes, too."""
        key = kept(name, self.removed())
        self.bucket.remove(f"{REMOVED}/{name}")
        for copy in self.cache.removed():
            if parse_removed(copy) == key:
                self.cache.delete_removed(copy)

    def _prove(self) -> None:
        """Before any work: the bucket is there, may be written, and refuses to create what exists (some stores ignore the condition)."""
        if self._proved:
            return
        mark = b"1"
        if self.bucket.create(_MARK, mark) and self.bucket.create(_MARK, mark):
            raise ArtifactError(
                f"store {self.location}",
                "takes a second write of an entry that must be written once: two runs could overwrite each other",
                "use a store with conditional writes (S3, Google Cloud Storage, MinIO and others of 2024 or later)",
            )
        self._proved = True


def _manifest(artifact_type: str, id: str) -> str:
    return f"objects/{key_of(artifact_type, id)}/{MANIFEST}"


def _repair(artifact_type: str, id: str, manifest: Manifest | None = None) -> str:
    how = (manifest.stage, manifest.seconds) if manifest else ()
    return f"restore it from an older version of the bucket's objects, or {repair.rebuild(key_of(artifact_type, id), *how)}"


def _files(manifest: Manifest) -> str:
    return f"objects/{manifest.artifact_type}/{manifest.id}/{manifest.content[:_CONTENT_DIGITS]}"
