"""A store behind any fsspec URL (`s3://bucket/prefix`), with a local folder as its cache.

Artifacts are made in the cache, under the same commit protocol, and uploaded file by file. The
manifest goes last, by a conditional put: if two machines make the same artifact, one wins and the
other takes the winner's. The files of an artifact lie under its content digest,
`objects/<artifact_type>/<id>/<content>/…`, so no upload can touch what another manifest lists.

Opening an artifact reads its manifest only. Its files are downloaded into the cache when they are
first read, and compared with the manifest before they are used.

Conditional puts are atomic on S3 (If-None-Match), and wherever the `mode="create"` of the fsspec
backend is. Credentials come from the environment or from the configuration of fsspec.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from data_contracts.contract import SHIPPED, Contracts
from data_contracts.errors import ArtifactError, how_to_rebuild
from data_contracts.store import commit, links, repair
from data_contracts.store.address import ArtifactKey, StoreAddress, default_cache, is_url
from data_contracts.store.artifact import MANIFEST, Artifact, Manifest
from data_contracts.store.bucket import Bucket
from data_contracts.store.disk import disk_faults
from data_contracts.store.entries import REFS, REFS_OF_0_1, StorageWithOlder
from data_contracts.store.identity import Identity, is_key, key_of
from data_contracts.store.local import Make, Store
from data_contracts.store.refs import Refs
from data_contracts.store.removed import (
    REMOVED,
    absent,
    age,
    kept,
    parse_removed,
    removed_name,
    replaced,
)

__all__ = ["Bucket", "RemoteStore", "open_artifact", "open_store"]

_MARK = "groundup-store"  # the one entry that every remote store has
_CONTENT_DIGITS = 16


def open_store(
    location: str | Path, cache: Path | None = None, contracts: Contracts = SHIPPED
) -> Store:
    """Open the store at a path or an fsspec URL.

    Args:
        location: The path or URL.
        cache: The local folder for a URL; by default the one of this URL.
        contracts: The contracts to check artifacts against.

    Raises:
        ConfigError: The URL cannot be used, or it holds credentials.
    """
    text = str(location)
    if not is_url(text):
        return Store(text.removeprefix("file://"), contracts)
    return RemoteStore(text, cache, contracts)


def open_artifact(key: ArtifactKey) -> Artifact:
    """Open an artifact by its key, on whatever machine this is.

    Its files are not verified: whoever made the key has done that.

    Raises:
        ArtifactError: The store does not have this making of the artifact.
    """
    cache = Path(key.store.cache) if key.store.cache else None
    store = open_store(key.store.location, cache)
    artifact = store.open(key.artifact_type, key.id, verify=False)
    if artifact.digest != key.digest:
        why = f"is another making in {store.location} than the one that this work began with"
        raise ArtifactError(f"artifact {key}", why, "run the stage again; nothing was published")
    return artifact


class RemoteStore(Store):
    """A store in a bucket. `root` is the cache; what is only in the cache does not exist."""

    def __init__(self, url: str, cache: Path | None = None, contracts: Contracts = SHIPPED):
        """See the class. `cache` is a local folder; by default the one of this URL."""
        self.bucket = Bucket(url)
        folder = cache or default_cache(url)
        self.cache = Store(folder, contracts)
        # Drafts are made in the cache, but workers find them by the address of the bucket.
        is_default = self.cache.root == default_cache(url)
        address = StoreAddress(self.bucket.url, None if is_default else str(self.cache.root))
        self.cache.address = address
        super().__init__(folder, contracts)
        self.address = address
        self.refs = Refs(StorageWithOlder(self.bucket.below(REFS), self.bucket.below(REFS_OF_0_1)))
        self._is_proved = False

    @property
    def location(self) -> str:
        """The URL."""
        return self.bucket.url

    def has(self, artifact_type: str, id: str) -> bool:
        """Do what `Store.has` does."""
        return self.bucket.find(_manifest_key(artifact_type, id)) is not None

    def ids(self) -> list[tuple[str, str]]:
        """Do what `Store.ids` does."""
        found = []
        for path in self.bucket.sizes("objects"):
            artifact_type, _, rest = path.partition("/")
            id_, _, name = rest.partition("/")
            if name == MANIFEST and is_key(artifact_type, id_):
                found.append((artifact_type, id_))
        return sorted(found)

    def holds(self, artifact_type: str, id: str) -> bool:
        """Do what `Store.holds` does."""
        return bool(self.bucket.sizes(f"objects/{key_of(artifact_type, id)}"))

    def _manifest_bytes(self, key: tuple[str, str]) -> bytes | None:
        try:
            return self.bucket.find(_manifest_key(*key))
        except ValueError:  # it is too long
            return None

    def open(self, artifact_type: str, id: str, verify: bool = True) -> Artifact:
        """Do what `Store.open` does, without the files.

        They are downloaded when they are first read, and then compared with the manifest whether
        `verify` is true or not.
        """
        what = f"artifact {artifact_type}/{id}"
        try:
            data = self.bucket.find(_manifest_key(artifact_type, id))
            if data is None:
                raise ArtifactError(what, f"is not in {self.location}", how_to_rebuild())
            manifest = Manifest.parse(data)
            if (manifest.artifact_type, manifest.id) != (artifact_type, id):
                raise ValueError(f"it is that of {manifest.artifact_type}/{manifest.id}")
        except ValueError as error:
            raise ArtifactError(
                f"{what} in {self.location}",
                f"its {MANIFEST} cannot be read: {error}",
                _how_to_repair(artifact_type, id),
            ) from None
        path = self.path(artifact_type, id)
        fetch = partial(self._fetch, manifest, data)
        artifact = Artifact(
            path, manifest, sha256(data).hexdigest(), self.contracts, fetch, self.address
        )
        if verify:
            artifact.verify()
        return artifact

    def _writing_refs(self, name: str) -> AbstractContextManager[None]:
        self._prove()
        return super()._writing_refs(name)

    def publish(
        self,
        artifact_type: str,
        identity: Identity,
        inputs: Mapping[str, Artifact],
        settings: dict[str, Any],
        make: Make,
    ) -> tuple[Artifact, bool]:
        """Do what `Store.publish` does.

        Two machines may both make the artifact; the first manifest to arrive counts for both.
        """
        self._prove()
        if self.has(artifact_type, identity.id):
            return self.open(artifact_type, identity.id, verify=False), False
        artifact, made = self.cache.publish(artifact_type, identity, inputs, settings, make)
        won = self._send(artifact)
        opened = self.open(artifact_type, identity.id, verify=False)
        return opened, won and made

    def _send(self, artifact: Artifact) -> bool:
        """Upload the files that are missing, and then the manifest.

        Returns:
            False if another manifest arrived first.
        """
        files = _files_key(artifact.manifest)
        # An object is absent until its upload is complete, so each that exists is whole.
        uploaded = self.bucket.sizes(files)
        missing = {}
        for entry in artifact.manifest.files:
            if uploaded.get(entry.path) != entry.bytes:
                missing[f"{files}/{entry.path}"] = artifact.path / entry.path
        self.bucket.upload(missing)
        key = _manifest_key(artifact.artifact_type, artifact.id)
        if self.bucket.create(key, (artifact.path / MANIFEST).read_bytes()):
            return True
        winner = Manifest.parse(self.bucket.read(key))
        if _files_key(winner) != files:
            self.bucket.remove(files)
        return False

    def _fetch(self, manifest: Manifest, data: bytes) -> None:
        """Download the files into the cache, unless it has this very artifact.

        Args:
            manifest: The manifest.
            data: The manifest as it is written.

        Raises:
            ArtifactError: What was downloaded is not what the manifest says.
        """
        artifact_type, id_ = manifest.artifact_type, manifest.id
        cached = self.path(artifact_type, id_)
        folder = self.root / "drafts" / f"fetch-{artifact_type}-{id_}"
        with (
            commit.locked(self.root, id_),
            disk_faults(f"{artifact_type} in {self.root}", self.root, folder),
        ):
            if (cached / MANIFEST).is_file() and (cached / MANIFEST).read_bytes() == data:
                return
            links.delete(self.root, cached, ignore_errors=True)
            commit.prepare(self.root, folder, cached.parent)
            files = _files_key(manifest)
            uploaded = self.bucket.sizes(files)
            # A file that is missing in the bucket is reported by the verification.
            wanted = {}
            for entry in manifest.files:
                if entry.path in uploaded:
                    wanted[f"{files}/{entry.path}"] = folder / entry.path
            self.bucket.download(wanted)
            try:
                Artifact(folder, manifest, sha256(data).hexdigest(), self.contracts).verify()
            except ArtifactError as error:
                links.delete(self.root, folder, ignore_errors=True)
                what = f"artifact {artifact_type}/{id_} in {self.location}"
                fix = _how_to_repair(artifact_type, id_, manifest)
                raise ArtifactError(what, error.why, fix) from None
            commit.commit(self.root, folder, cached, data)

    def set_aside(self, artifact_type: str, id: str) -> str:
        """Do what `Store.set_aside` does, for the bucket and the cache.

        The manifest is removed first, so the artifact is absent or whole at any moment.
        """
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
        """Do what `Store.removed` does."""
        return sorted(filter(parse_removed, self.bucket.children(REMOVED)), key=age)

    def bring_back(self, name: str) -> str:
        """Do what `Store.bring_back` does. The manifest comes last, by a conditional put."""
        key = kept(name, self.removed())
        source = f"{REMOVED}/{name}"
        target = f"objects/{key_of(*key)}"
        if self.has(*key):
            raise replaced(*key)
        entries = [path for path in self.bucket.sizes(source) if path != MANIFEST]
        self.bucket.copy({f"{source}/{path}": f"{target}/{path}" for path in entries})
        written = self.bucket.find(f"{source}/{MANIFEST}")
        if written is not None and not self.bucket.create(f"{target}/{MANIFEST}", written):
            raise replaced(*key)
        self.bucket.remove(source)
        return f"{self.location}/{target}"

    def delete_removed(self, name: str) -> None:
        """Do what `Store.delete_removed` does, also to what the cache keeps of the artifact."""
        key = kept(name, self.removed())
        self.bucket.remove(f"{REMOVED}/{name}")
        for copy in self.cache.removed():
            if parse_removed(copy) == key:
                self.cache.delete_removed(copy)

    def _prove(self) -> None:
        """Check, before any work, that the bucket can be written to and has conditional writes.

        Some stores ignore the condition and let two runs overwrite each other.

        Raises:
            ArtifactError: The bucket cannot be used.
        """
        if self._is_proved:
            return
        mark = b"1"
        if self.bucket.create(_MARK, mark) and self.bucket.create(_MARK, mark):
            raise ArtifactError(
                f"store {self.location}",
                "takes a second write of an entry that must be written once: "
                "two runs could overwrite each other",
                "use a store with conditional writes "
                "(S3, Google Cloud Storage, MinIO and others of 2024 or later)",
            )
        self._is_proved = True


def _manifest_key(artifact_type: str, id: str) -> str:
    return f"objects/{key_of(artifact_type, id)}/{MANIFEST}"


def _files_key(manifest: Manifest) -> str:
    content = manifest.content[:_CONTENT_DIGITS]
    return f"objects/{manifest.artifact_type}/{manifest.id}/{content}"


def _how_to_repair(artifact_type: str, id: str, manifest: Manifest | None = None) -> str:
    key = key_of(artifact_type, id)
    stage, seconds = (manifest.stage, manifest.seconds) if manifest else (None, None)
    again = repair.rebuild(key, stage, seconds)
    return f"restore it from an older version of the bucket's objects, or {again}"
