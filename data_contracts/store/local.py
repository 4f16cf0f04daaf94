"""A store in a local folder.

`objects/<artifact_type>/<id>/` holds immutable artifacts, `refs/` points at them, and `drafts/`
holds artifacts that are still being written. See `commit.py` for how a draft becomes an artifact.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from data_contracts.contract import SHIPPED, Contracts
from data_contracts.environment import folder_named
from data_contracts.errors import ArtifactError
from data_contracts.files import flush, read_bounded
from data_contracts.store import commit, links, repair, resolution, seals
from data_contracts.store.address import StoreAddress, StoreKey
from data_contracts.store.artifact import MANIFEST, Artifact, Manifest
from data_contracts.store.disk import disk_faults
from data_contracts.store.draft import Draft
from data_contracts.store.entries import REFS, REFS_OF_0_1, FolderStorage, StorageWithOlder
from data_contracts.store.identity import Identity, is_key, key_of
from data_contracts.store.manifest import MAX_BYTES
from data_contracts.store.publishing import as_written, describe, now, ref_to, require_described
from data_contracts.store.refs import CONCURRENT_READS, RecipeRef, Ref, Refs
from data_contracts.store.removed import (
    REMOVED,
    absent,
    age,
    kept,
    parse_removed,
    removed_name,
    replaced,
)

Make = Callable[[Draft], dict[str, Any]]


class Store:
    """A store in a local folder. `remote.open_store` opens this or a store behind a URL.

    Attributes:
        root: The folder.
        contracts: The contracts to check artifacts against.
        address: How workers find the store.
        refs: What points at artifacts.
    """

    def __init__(self, root: Path | str, contracts: Contracts = SHIPPED):
        self.root = folder_named("GROUNDUP_STORE", str(root))
        self.contracts = contracts
        self.address = StoreAddress(str(self.root))
        current = FolderStorage(self.root / REFS)
        older = FolderStorage(self.root / REFS_OF_0_1)
        self.refs = Refs(StorageWithOlder(current, older))

    @property
    def location(self) -> str:
        """Where the store is, for messages."""
        return str(self.root)

    def path(self, artifact_type: str, id: str) -> Path:
        """Return the folder of an artifact, whether it exists or not.

        Raises:
            ArtifactError: These are not a type and an id, or a link lies on the way. So no path
                leads out of the store.
        """
        return links.within(self.root, self._path_or_link(artifact_type, id))

    def _path_or_link(self, artifact_type: str, id: str) -> Path:
        """Return the same as `path`, but of a folder that may be a link, to be moved away."""
        path = self.root / "objects" / key_of(artifact_type, id)
        links.within(self.root, path.parent)
        return path

    def holds(self, artifact_type: str, id: str) -> bool:
        """Return whether the path exists: as an artifact, as its remains, or as a link."""
        return os.path.lexists(self._path_or_link(artifact_type, id))

    def has(self, artifact_type: str, id: str) -> bool:
        """Return whether there is such an artifact.

        Raises ArtifactError where reading is not allowed.
        """
        path = self.path(artifact_type, id) / MANIFEST
        with repair.reading(f"artifact {artifact_type}/{id}", path):
            return path.is_file()

    def ids(self) -> list[tuple[str, str]]:
        """Return (artifact_type, id) of every artifact.

        Folders with other names are not artifacts.

        Raises:
            ArtifactError: A folder cannot be read.
        """
        found = []
        with repair.reading(f"store {self.root}", self.root):
            for kind in _folders(links.within(self.root, self.root / "objects")):
                for folder in _folders(kind):
                    key = (kind.name, folder.name)
                    if is_key(*key) and self._is_listed(folder):
                        found.append(key)
        return sorted(found)

    def _is_listed(self, folder: Path) -> bool:
        """Return whether it has a manifest.

        A link is listed, too, so that opening it gives an error.
        """
        links.within(self.root, folder.parent)
        return folder.is_symlink() or self.has(folder.parent.name, folder.name)

    def open(self, artifact_type: str, id: str, verify: bool = True) -> Artifact:
        """Open an artifact, and compare it with its manifest byte for byte if `verify` is true.

        Args:
            artifact_type: Its type.
            id: Its id.
            verify: Whether to read all its files.

        Raises:
            ArtifactError: It is missing or damaged.
        """
        artifact = Artifact.at(self.path(artifact_type, id), self.contracts)
        if (artifact.artifact_type, artifact.id) != (artifact_type, id):
            key = f"{artifact_type}/{id}"
            why = f"its manifest says {artifact}: it was moved"
            fix = (
                "move it back, or restore what was here from a copy of the store, or "
                f"{repair.rebuild(key)}"
            )
            raise ArtifactError(f"artifact {key}", why, fix)
        if verify:
            artifact.verify()
        return artifact

    def resolve(self, reference: str) -> tuple[str, str]:
        """Return (artifact_type, id) of `run/output`, `artifact_type/id` or the start of an id.

        Raises:
            ConfigError: Nothing or more than one thing fits; the message names what there is.
        """
        return resolution.resolve(self, reference)

    def find(self, reference: str, verify: bool = False) -> Artifact:
        """Resolve a reference, and open what it means.

        Raises:
            ConfigError: As `resolve`.
            ArtifactError: As `open`; or the manifest is not the one whose digest the store holds.
        """
        artifact = self.open(*self.resolve(reference), verify=verify)
        self.require_unchanged(artifact, reference)
        return artifact

    def require_unchanged(self, artifact: Artifact, reference: str) -> None:
        """Refuse an artifact if refs, or else manifests downstream, hold other digests only.

        Args:
            artifact: The artifact.
            reference: What it was found by. If this is a ref that agrees, nothing else is read.

        Raises:
            ArtifactError: The manifest was changed.
        """
        ref = resolution.pointing(self, reference)
        if ref is None or not seals.agrees(ref, artifact):
            self.check_seal(artifact)

    def check_seal(self, artifact: Artifact) -> seals.Seal:
        """Compare the manifest with the digests that this store holds of it.

        Raises:
            ArtifactError: There are digests, and none is this manifest's.
        """
        pointed_at = self.refs.current().pointing_at(artifact.artifact_type, artifact.id)
        return seals.check_seal(artifact, pointed_at, lambda: self.downstream(artifact))

    def downstream(self, artifact: Artifact) -> dict[str, str | None]:
        """Return the digests that manifests of artifacts made from it hold of it, by "type/id"."""
        held: dict[str, str | None] = {}
        keys = self.ids()
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            manifests = pool.map(self._manifest_bytes, keys)
            for key, written in zip(keys, manifests, strict=True):
                # Parsing takes longer than reading, and most manifests do not mention the id.
                if written is None or artifact.id.encode() not in written:
                    continue
                with suppress(ValueError):  # it is not a manifest
                    for ref in Manifest.parse(written).inputs.values():
                        if (ref.artifact_type, ref.id) == (artifact.artifact_type, artifact.id):
                            held["/".join(key)] = ref.manifest_sha256
        return held

    def _manifest_bytes(self, key: tuple[str, str]) -> bytes | None:
        """Return a manifest as it is written; None for one that cannot be read."""
        try:
            return read_bounded(self.path(*key) / MANIFEST, MAX_BYTES)
        except (ArtifactError, OSError, ValueError):
            return None

    def point(
        self, name: str, output: str, artifact: Artifact, made_by: str, made: bool = True
    ) -> bool:
        """Let the ref name/output point at `artifact` from now on.

        Args:
            name: The run that has the output.
            output: The output.
            artifact: What it is from now on.
            made_by: The flow run or the command that points the ref at it.
            made: Whether the artifact was made now. If it was not, its manifest must be the one
                that refs hold, where any ref holds one: a rerun that finds everything up to date
                proves nothing.

        Returns:
            False if the ref says all this already.

        Raises:
            ArtifactError: The manifest was changed.
        """
        with self._writing_refs(name):
            newest = self.refs.get(name, output)
            digest = artifact.digest if made else self._digest_to_hold(newest, artifact)
            return self.refs.set(name, output, ref_to(artifact, made_by, digest))

    def _digest_to_hold(self, newest: Ref | None, artifact: Artifact) -> str | None:
        """Return the digest for a ref to an older artifact; None if it stays unsealed.

        Raises:
            ArtifactError: The store holds other digests of the artifact, and not this one.
        """
        if newest and seals.agrees(newest, artifact):
            return artifact.digest
        self.check_seal(artifact)
        if newest is None or newest.key != (artifact.artifact_type, artifact.id):
            return artifact.digest
        is_unsealed = newest.manifest_sha256 is None and not newest.removed
        return None if is_unsealed else artifact.digest

    def set_aside(self, artifact_type: str, id: str) -> str:
        """Move an artifact, or what remains of one, to `removed/`. Returns its new path."""
        source = self._path_or_link(artifact_type, id)
        with commit.locked(self.root, id), disk_faults(f"artifact {artifact_type}/{id}", self.root):
            if not os.path.lexists(source):
                raise absent(artifact_type, id, self.location)
            target = links.within(self.root, self.root / REMOVED / removed_name(artifact_type, id))
            _move(source, target)
        return str(target)

    def removed(self) -> list[str]:
        """Return the names that `set_aside` has given, oldest first."""
        with repair.reading(f"store {self.root}", self.root):
            folders = _folders(links.within(self.root, self.root / REMOVED))
            names = [folder.name for folder in folders]
        return sorted(filter(parse_removed, names), key=age)

    def bring_back(self, name: str) -> str:
        """Let what is kept under `name` be an artifact again. Returns its path.

        Raises:
            ConfigError: Nothing is kept under `name`.
            ArtifactError: The artifact exists.
        """
        key = kept(name, self.removed())
        source = links.within(self.root, self.root / REMOVED / name)
        target = self._path_or_link(*key)
        with (
            commit.locked(self.root, key[1]),
            disk_faults(f"artifact {'/'.join(key)}", self.root),
        ):
            if os.path.lexists(target):
                raise replaced(*key)
            _move(source, target)
        return str(target)

    def delete_removed(self, name: str) -> None:
        """Delete for good what is kept under `name`."""
        kept(name, self.removed())
        with disk_faults(f"{REMOVED}/{name}", self.root):
            links.delete(self.root, self.root / REMOVED / name)

    def remember_recipe(
        self,
        name: str,
        recipe: str,
        changes: Iterable[str],
        settings: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Remember the recipe that the whole run `name` follows.

        Args:
            name: The run.
            recipe: The recipe.
            changes: The settings that differ from it, each as "stage.key=value".
            settings: All settings of each stage, as they were resolved.
        """
        entry = RecipeRef(recipe=recipe, changes=tuple(changes), settings=dict(settings or {}))
        with self._writing_refs(name):
            self.refs.set_recipe(name, entry)

    def publish(
        self,
        artifact_type: str,
        identity: Identity,
        inputs: Mapping[str, Artifact],
        settings: dict[str, Any],
        make: Make,
    ) -> tuple[Artifact, bool]:
        """Make the artifact with this identity, unless it exists.

        If two processes want the same artifact, one makes it; the other waits and gets it.

        Args:
            artifact_type: Its type.
            identity: What its id is made of.
            inputs: The artifacts that it is made from, by input name.
            settings: All settings of the stage, for the manifest.
            make: Fills a draft and returns facts for the manifest.

        Returns:
            The artifact, and whether it was made now.

        Raises:
            ContractError: What was made breaks the contract.
            ArtifactError: The disk has a fault. In both cases nothing becomes visible.
        """
        key = StoreKey(self.address, f"drafts/{artifact_type}-{identity.id}")
        draft = Draft(artifact_type, key, self.contracts)
        with commit.locked(self.root, identity.id):
            # Only the scratch folder is kept between runs; the rest of the draft is cleared.
            links.require_plain(self.root, draft.folder / "scratch")
            if self.has(artifact_type, identity.id):
                # The draft is left from a process that was killed just after its commit.
                links.delete(self.root, draft.folder, ignore_errors=True)
                return self.open(artifact_type, identity.id), False
            require_described(identity, draft, inputs)
            with disk_faults(f"{artifact_type} in {self.root}", self.root, draft.files):
                target = self.path(artifact_type, identity.id)
                commit.prepare(self.root, draft.files, target.parent)
                started = now()
                facts = make(draft)
                manifest = describe(draft, identity, inputs, settings, facts, started)
                written = as_written(manifest)
                commit.commit(
                    self.root, draft.files, self.path(artifact_type, identity.id), written
                )
            links.delete(self.root, draft.folder, ignore_errors=True)
            path = self.path(artifact_type, identity.id)
            return Artifact(path, manifest, sha256(written).hexdigest(), self.contracts), True

    def _writing_refs(self, name: str) -> AbstractContextManager[None]:
        return disk_faults(f"name {name}", self.root)


def _folders(parent: Path) -> list[Path]:
    """Return the folders in a folder, and links wherever they lead: they must not be overlooked."""
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() or path.is_symlink()]


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    flush(source.parent)
    flush(target.parent)
