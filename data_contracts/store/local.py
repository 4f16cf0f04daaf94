"""Where artifacts live: `objects/<artifact_type>/<id>/`, immutable; `refs/`, which point at them; `drafts/`, which are not yet.

Commit protocol: write into a draft on the same filesystem, check it, fsync, manifest last, rename. Killed at any moment,
an artifact is absent or whole. A lock on the id dies with the process that holds it (flock), so no clock decides.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_contracts.contract import SHIPPED, Contracts
from data_contracts.errors import ArtifactError, ConfigError, ContractError
from data_contracts.files import CORRECT, flush, read_bounded
from data_contracts.store import links, repair, seals
from data_contracts.store.artifact import MANIFEST, Artifact, InputRef, Manifest
from data_contracts.store.disk import faults_told
from data_contracts.store.draft import Draft, settle
from data_contracts.store.identity import ID_DIGITS, Identity, is_key, key_of
from data_contracts.store.manifest import MAX_BYTES
from data_contracts.store.refs import (
    CONCURRENT_READS,
    REFS,
    REFS_OF_0_1,
    FolderStorage,
    RecipeRef,
    Ref,
    Refs,
    StorageWithOlder,
    is_name,
)
from data_contracts.store.removed import (
    REMOVED,
    absent,
    age,
    in_its_stead,
    kept,
    parse_removed,
    removed_name,
)

Make = Callable[[Draft], dict[str, Any]]


class Store:
    """A store in a local directory. `remote.open_store` opens this or a store behind a URL."""

    def __init__(self, root: Path | str, contracts: Contracts = SHIPPED):
        self.root = Path(root).expanduser().resolve()
        self.contracts = contracts
        self.refs = Refs(
            StorageWithOlder(
                FolderStorage(self.root / REFS), FolderStorage(self.root / REFS_OF_0_1)
            )
        )

    @property
    def location(self) -> str:
        """Where the store is, for messages."""
        return str(self.root)

    def path(self, artifact_type: str, id: str) -> Path:
        """Where an artifact lies, or would.

        Raises ArtifactError for what is no type or id, and for a link on the way: no path leads out of the store.
        """
        return links.within(self.root, self._place(artifact_type, id))

    def _place(self, artifact_type: str, id: str) -> Path:
        """The same, for those to whom a link in the stead of the artifact is something to take away."""
        place = self.root / "objects" / key_of(artifact_type, id)
        links.within(self.root, place.parent)
        return place

    def holds(self, artifact_type: str, id: str) -> bool:
        """Whether there is anything in the place of the artifact: itself, what remains of one, a link."""
        return os.path.lexists(self._place(artifact_type, id))

    def has(self, artifact_type: str, id: str) -> bool:
        """Whether there is such an artifact. Raises ArtifactError where the store does not let us look."""
        path = self.path(artifact_type, id) / MANIFEST
        with repair.reading(f"artifact {artifact_type}/{id}", path):
            return path.is_file()

    def ids(self) -> list[tuple[str, str]]:
        """(artifact_type, id) of every artifact; what is named otherwise is none. Raises ArtifactError where a folder cannot be read."""
        found = []
        with repair.reading(f"store {self.root}", self.root):
            for kind in _folders(links.within(self.root, self.root / "objects")):
                folders = [folder for folder in _folders(kind) if is_key(kind.name, folder.name)]
                found += [(kind.name, folder.name) for folder in folders if self._is_listed(folder)]
        return sorted(found)

    def _is_listed(self, folder: Path) -> bool:
        """Whether it has a manifest. A link in the stead of an artifact is listed, too, so that whoever opens it is told."""
        links.within(self.root, folder.parent)
        return folder.is_symlink() or self.has(folder.parent.name, folder.name)

    def open(self, artifact_type: str, id: str, verify: bool = True) -> Artifact:
        """The artifact, compared with its manifest byte for byte unless `verify` is False.

        Raises ArtifactError if it is missing or damaged.
        """
        artifact = Artifact.at(self.path(artifact_type, id), self.contracts)
        if (artifact.artifact_type, artifact.id) != (artifact_type, id):
            fix = f"move it back, or restore what was here from a copy of the store, or {repair.rebuild(f'{artifact_type}/{id}')}"
            raise ArtifactError(
                f"artifact {artifact_type}/{id}", f"its manifest says {artifact}: it was moved", fix
            )
        if verify:
            artifact.verify()
        return artifact

    def resolve(self, reference: str) -> tuple[str, str]:
        """(artifact_type, id) of `name/output`, `artifact_type/id`, an id, or the beginning of an id.

        Raises ConfigError that names what there is, if nothing or more than one thing fits.
        """
        left, slash, right = reference.partition("/")
        if ref := self._pointing(reference):
            return ref.artifact_type, ref.id
        digits = right if slash else left
        if re.fullmatch(rf"[0-9a-f]{{6,{ID_DIGITS}}}", digits):
            found = [
                key
                for key in self.ids()
                if key[1].startswith(digits) and (not slash or key[0] == left)
            ]
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(key[1] for key in found[:5])
                raise ConfigError(
                    f"artifact {reference!r}",
                    f"{len(found)} ids begin so",
                    f"give more digits: {shown}",
                )
        raise self._unknown(reference)

    def _pointing(self, reference: str) -> Ref | None:
        """What `reference` points at, if it is a ref and not something else."""
        name, slash, output = reference.partition("/")
        return self.refs.get(name, output) if slash and is_name(name) and is_name(output) else None

    def _unknown(self, reference: str) -> ConfigError:
        run, slash, output = reference.partition("/")
        names = self.refs.runs()
        known = [f"{run}/{output}" for output in self.refs.outputs(run)] if run in names else names
        why = f"is neither a run nor an artifact of {self.location}"
        if run in names and not slash:
            why = "is a run, and one artifact of it is wanted"
        elif run in names and is_name(output):
            why = f"the run {run} has no {output}"
        fix = f"choose from: {', '.join(known)}" if known else "make one first: groundup run"
        return ConfigError(f"artifact {reference!r}", why, fix)

    def find(self, reference: str, verify: bool = False) -> Artifact:
        """`resolve` and `open` in one. Raises ArtifactError, too, if the manifest is not the one whose digest the store holds."""
        artifact = self.open(*self.resolve(reference), verify=verify)
        self.require_unchanged(artifact, reference)
        return artifact

    def require_unchanged(self, artifact: Artifact, reference: str) -> None:
        """Refuse an artifact whose manifest is none of those of which refs, or else manifests downstream, hold the digest.

        reference: by which it was found. Where that is a ref which agrees, nothing else is read. Raises ArtifactError.
        """
        ref = self._pointing(reference)
        if ref is None or not seals.agrees(ref, artifact):
            self.judge(artifact)

    def judge(self, artifact: Artifact) -> seals.Seal:
        """Compare the manifest with the digests that this store holds of it. Raises ArtifactError if none is this one's."""
        pointed_at = self.refs.current().pointing_at(artifact.artifact_type, artifact.id)
        return seals.judge(artifact, pointed_at, lambda: self.downstream(artifact))

    def downstream(self, artifact: Artifact) -> dict[str, str | None]:
        """What the manifests of artifacts that were made from it hold of its manifest, by "type/id"."""
        held: dict[str, str | None] = {}
        wanted, keys = artifact.id.encode(), self.ids()
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            for key, written in zip(keys, pool.map(self._written, keys), strict=True):
                if (
                    written is None or wanted not in written
                ):  # most: parsing takes longer than reading
                    continue
                with suppress(ValueError):  # no manifest
                    for ref in Manifest.parse(written).inputs.values():
                        if (ref.artifact_type, ref.id) == (artifact.artifact_type, artifact.id):
                            held["/".join(key)] = ref.manifest_sha256
        return held

    def _written(self, key: tuple[str, str]) -> bytes | None:
        """A manifest as it is written; None for one that cannot be read."""
        try:
            return read_bounded(self.path(*key) / MANIFEST, MAX_BYTES)
        except (ArtifactError, OSError, ValueError):
            return None

    def point(
        self, name: str, output: str, artifact: Artifact, run: str, made: bool = True
    ) -> bool:
        """Let name/output mean `artifact` from now on. False if it already does.

        made: whether it was made now. The manifest of one that was there before must be what a ref was pointed at, if any ref says so:
        a rerun that finds everything up to date vouches for nothing. Raises ArtifactError if it is not.
        """
        with self._naming(name):
            newest = self.refs.get(name, output)
            digest = artifact.digest if made else self._digest_to_hold(newest, artifact)
            ref = pointing_at(artifact, run, digest)
            return self.refs.set(name, output, ref)

    def _digest_to_hold(self, newest: Ref | None, artifact: Artifact) -> str | None:
        """The digest that a ref may hold which is pointed at an artifact that was there before; None: it stays unsealed.

        Raises ArtifactError if the store holds other digests of it, and not this.
        """
        if newest and seals.agrees(newest, artifact):
            return artifact.digest
        self.judge(artifact)
        if newest is None or (newest.artifact_type, newest.id) != (
            artifact.artifact_type,
            artifact.id,
        ):
            return artifact.digest
        unsealed = newest.manifest_sha256 is None and not newest.removed
        return None if unsealed else artifact.digest

    def set_aside(self, artifact_type: str, id: str) -> str:
        """Take an artifact, or what remains of one, out of the store and keep it under `removed/`; returns where it is kept."""
        source = self._place(artifact_type, id)
        with self.locked(id), faults_told(f"artifact {artifact_type}/{id}", self.root):
            if not os.path.lexists(source):
                raise absent(artifact_type, id, self.location)
            target = links.within(self.root, self.root / REMOVED / removed_name(artifact_type, id))
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            flush(source.parent)
            flush(target.parent)
        return str(target)

    def removed(self) -> list[str]:
        """What `set_aside` keeps, oldest first."""
        with repair.reading(f"store {self.root}", self.root):
            folders = _folders(links.within(self.root, self.root / REMOVED))
            return sorted((one.name for one in folders if parse_removed(one.name)), key=age)

    def bring_back(self, name: str) -> str:
        """Let what is kept under `name` be an artifact again; returns where. Raises ArtifactError if there is one in its stead."""
        key = kept(name, self.removed())
        source, target = links.within(self.root, self.root / REMOVED / name), self._place(*key)
        with self.locked(key[1]), faults_told(f"artifact {'/'.join(key)}", self.root):
            if os.path.lexists(target):
                raise in_its_stead(*key)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            flush(source.parent)
            flush(target.parent)
        return str(target)

    def delete_removed(self, name: str) -> None:
        """Delete for good what is kept under `name`."""
        kept(name, self.removed())
        with faults_told(f"{REMOVED}/{name}", self.root):
            links.delete(self.root, self.root / REMOVED / name)

    def follow(self, name: str, recipe: str, changes: Iterable[str]) -> None:
        """Remember the recipe that a whole run of `name` follows, and what differs from it."""
        with self._naming(name):
            self.refs.set_recipe(name, RecipeRef(recipe=recipe, changes=tuple(changes)))

    def publish(
        self,
        artifact_type: str,
        identity: Identity,
        inputs: Mapping[str, Artifact],
        settings: dict[str, Any],
        make: Make,
    ) -> tuple[Artifact, bool]:
        """The artifact with this identity, and whether it was made now. `make` fills a draft and returns facts for the manifest.

        Two processes that want the same artifact: one makes it, the other waits and gets it.
        Raises ContractError if what was made breaks the contract, ArtifactError on disk faults; nothing is visible then.
        """
        draft = Draft(
            artifact_type, self.root / "drafts" / f"{artifact_type}-{identity.id}", self.contracts
        )
        with self.locked(identity.id):
            links.require_plain(self.root, draft.place / "scratch")  # what else is there is cleared
            if self.has(artifact_type, identity.id):
                links.delete(
                    self.root, draft.place, ignore_errors=True
                )  # of a process that was killed just after its commit
                return self.open(artifact_type, identity.id), False
            _require_described(identity, draft, inputs)
            with faults_told(f"{artifact_type} in {self.root}", self.root, draft.files):
                self.clear(draft.files, self.path(artifact_type, identity.id).parent)
                started = _now()
                facts = make(draft)
                files, rows = settle(draft, inputs)
                manifest = Manifest(
                    groundup=version("groundup"), id=identity.id, artifact_type=artifact_type, contract=str(draft.contract.version),
                    stage=identity.stage, stage_version=identity.stage_version, as_of=identity.as_of, config=identity.config,
                    settings=settings, inputs={name: _input(artifact) for name, artifact in inputs.items()},
                    rows=rows, facts=facts, files=files, started=started, finished=_now(),
                )  # fmt: skip
                written = _written(manifest)
                self.commit(draft.files, artifact_type, identity.id, written)
            links.delete(self.root, draft.place, ignore_errors=True)
            return Artifact(
                self.path(artifact_type, identity.id),
                manifest,
                sha256(written).hexdigest(),
                self.contracts,
            ), True

    def clear(self, files: Path, objects: Path) -> None:
        """An empty folder, on the filesystem of the objects: the rename at the end of long work must not fail for that."""
        links.within(self.root, objects)
        if os.path.lexists(links.within(self.root, files)):
            links.delete(self.root, files)
        for folder in (files, objects):
            folder.mkdir(parents=True, exist_ok=True)
        if objects.stat().st_dev != files.stat().st_dev:
            raise ArtifactError(
                f"store {self.root}",
                f"{objects} and {files} are on two filesystems",
                "have the whole store on one, or give another with GROUNDUP_STORE",
            )

    def commit(self, files: Path, artifact_type: str, id: str, manifest: bytes) -> None:
        """Let a folder of finished files appear as the artifact, at once."""
        with (files / MANIFEST).open("wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        for folder in [*(path for path in files.rglob("*") if path.is_dir()), files]:
            flush(folder)
        target = self.path(artifact_type, id)
        if (
            target.exists()
        ):  # a folder without manifest: the remains of an artifact that a person took apart
            links.delete(self.root, target)
        files.rename(target)
        for folder in (target.parent, target.parent.parent, self.root):
            flush(folder)

    def _naming(self, name: str) -> AbstractContextManager[None]:
        return faults_told(f"name {name}", self.root)

    @contextmanager
    def locked(self, id: str) -> Iterator[None]:
        folder = self.root / "locks"
        with faults_told(f"lock in {self.root}", self.root):
            path = links.within(self.root, folder / id)
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(
                path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666
            )  # the umask says who else may
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                why = f"its filesystem gives no lock: {error.strerror}"
                raise ArtifactError(
                    f"store {self.root}",
                    why,
                    "give a place on a filesystem with locks with GROUNDUP_STORE",
                ) from None
            yield
        finally:
            os.close(handle)


def _require_described(identity: Identity, draft: Draft, inputs: Mapping[str, Artifact]) -> None:
    """Refuse an identity that the manifest would not give back: `verify` computes every id again."""
    contract = f"{draft.artifact_type} {draft.contract.version}"
    given = {name: artifact.id for name, artifact in inputs.items()}
    if (identity.contract, identity.inputs) != (contract, given):
        why = f"is of contract {identity.contract} and inputs {identity.inputs}, what is published of {contract} and {given}"
        raise ContractError(f"identity {identity.id}", why, CORRECT)


def _input(artifact: Artifact) -> InputRef:
    return InputRef(
        artifact_type=artifact.artifact_type, id=artifact.id, manifest_sha256=artifact.digest
    )


def _folders(parent: Path) -> list[Path]:
    """Folders in a folder, and links, wherever they lead: what stands in a folder's stead is not to be overlooked."""
    return (
        [path for path in parent.iterdir() if path.is_dir() or path.is_symlink()]
        if parent.is_dir()
        else []
    )


def pointing_at(artifact: Artifact, run: str, digest: str | None) -> Ref:
    """A ref's entry for an artifact, from now on."""
    made = artifact.manifest
    return Ref(
        artifact_type=made.artifact_type, id=made.id, at=_now(), run=run, stage=made.stage, settings=made.settings, as_of=made.as_of,
        manifest_sha256=digest,
    )  # fmt: skip


def _written(manifest: Manifest) -> bytes:
    try:
        return manifest.model_dump_json(indent=1).encode()
    except ValueError as error:  # a numpy number, a Path … among the facts
        raise ContractError(
            f"facts of stage {manifest.stage}",
            f"are not plain JSON: {error}",
            "nothing was published; correct the stage",
        ) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
