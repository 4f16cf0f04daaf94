"""Where artifacts live: `objects/<noun>/<id>/`, immutable; `names/`, which point at them; `drafts/`, which are not yet.

Commit protocol: write into a draft on the same filesystem, check it, fsync, manifest last, rename. Killed at any moment,
an artifact is absent or whole. A lock on the id dies with the process that holds it (flock), so no clock decides.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_contracts import repair, seals
from data_contracts.artifact import MANIFEST, Artifact, InputRef, Manifest
from data_contracts.contract import SHIPPED, Contracts
from data_contracts.disk import faults_told
from data_contracts.draft import Draft, settle
from data_contracts.errors import ArtifactError, ConfigError, ContractError
from data_contracts.files import CORRECT, flush
from data_contracts.identity import ID_DIGITS, Identity, is_key, key_of
from data_contracts.names import Folder, Followed, Names, Pointing, checked, is_name
from data_contracts.removed import REMOVED, age, in_its_stead, kept, parse_removed, removed_name

Make = Callable[[Draft], dict[str, Any]]


class Store:
    """A store in a local directory. `remote.open_store` opens this or a store behind a URL."""

    def __init__(self, root: Path | str, contracts: Contracts = SHIPPED):
        self.root = Path(root).expanduser().resolve()
        self.contracts = contracts
        self.names = Names(Folder(self.root / "names"))

    @property
    def location(self) -> str:
        """Where the store is, for messages."""
        return str(self.root)

    def path(self, noun: str, id: str) -> Path:
        """Where an artifact lies, or would. Raises ArtifactError for what is no type or id: no path leads out of the store."""
        return self.root / "objects" / key_of(noun, id)

    def has(self, noun: str, id: str) -> bool:
        """Whether there is such an artifact. Raises ArtifactError where the store does not let us look."""
        path = self.path(noun, id) / MANIFEST
        with repair.reading(f"artifact {noun}/{id}", path):
            return path.is_file()

    def ids(self) -> list[tuple[str, str]]:
        """(noun, id) of every artifact; what is named otherwise is none. Raises ArtifactError where a folder cannot be read."""
        found = []
        with repair.reading(f"store {self.root}", self.root):
            for kind in _folders(self.root / "objects"):
                keys = [(kind.name, folder.name) for folder in _folders(kind)]
                found += [key for key in keys if is_key(*key) and self.has(*key)]
        return sorted(found)

    def open(self, noun: str, id: str, verify: bool = True) -> Artifact:
        """The artifact, compared with its manifest byte for byte unless `verify` is False.

        Raises ArtifactError if it is missing or damaged.
        """
        artifact = Artifact.at(self.path(noun, id), self.contracts)
        if (artifact.noun, artifact.id) != (noun, id):
            fix = f"move it back, or restore what was here from a copy of the store, or {repair.rebuild(f'{noun}/{id}')}"
            raise ArtifactError(f"artifact {noun}/{id}", f"its manifest says {artifact}: it was moved", fix)
        if verify:
            artifact.verify()
        return artifact

    def resolve(self, reference: str) -> tuple[str, str]:
        """(noun, id) of `name/role`, `noun/id`, an id, or the beginning of an id.

        Raises ConfigError that names what there is, if nothing or more than one thing fits.
        """
        left, slash, right = reference.partition("/")
        if slash and (pointing := self.names.get(checked(left), checked(right))):
            return pointing.noun, pointing.id
        digits = right if slash else left
        if re.fullmatch(rf"[0-9a-f]{{6,{ID_DIGITS}}}", digits):
            found = [key for key in self.ids() if key[1].startswith(digits) and (not slash or key[0] == left)]
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(key[1] for key in found[:5])
                raise ConfigError(f"artifact {reference!r}", f"{len(found)} ids begin so", f"give more digits: {shown}")
        names = self.names.all()
        known = [f"{left}/{role}" for role in self.names.roles(left)] if left in names else names
        raise ConfigError(
            f"artifact {reference!r}",
            f"there is none of that name or id in {self.location}",
            f"choose from: {', '.join(known)}" if known else "make one first: groundup run",
        )

    def find(self, reference: str, verify: bool = False) -> Artifact:
        """`resolve` and `open` in one. Raises ArtifactError, too, if the manifest is not the one that the ref was pointed at."""
        artifact = self.open(*self.resolve(reference), verify=verify)
        name, slash, output = reference.partition("/")
        if slash and is_name(name) and is_name(output):
            self.require_pointed_at(name, output, artifact)
        return artifact

    def require_pointed_at(self, name: str, output: str, artifact: Artifact) -> None:
        """Refuse an artifact at which name/output points and whose manifest is not what any ref was pointed at."""
        pointing = self.names.get(name, output)
        if pointing and (pointing.noun, pointing.id) == (artifact.noun, artifact.id):
            seals.require(pointing, f"{name}/{output}", artifact, self.names)

    def point(self, name: str, role: str, artifact: Artifact, run: str, made: bool = True) -> bool:
        """Let name/role mean `artifact` from now on. False if it already does.

        made: whether it was made now. The manifest of one that was there before must be what a ref was pointed at, if any ref says so:
        a rerun that finds everything up to date vouches for nothing. Raises ArtifactError if it is not.
        """
        with self._naming(name):
            newest = self.names.get(name, role)
            digest = artifact.digest if made else seals.held(newest, artifact, self.names)
            pointing = pointing_at(artifact, run, digest)
            return self.names.set(name, role, pointing)

    def set_aside(self, noun: str, id: str) -> str:
        """Take an artifact, or what remains of one, out of the store and keep it under `removed/`; returns where it is kept."""
        source = self.path(noun, id)
        with self.locked(id), faults_told(f"artifact {noun}/{id}", self.root):
            if not os.path.lexists(source):
                raise ArtifactError(f"artifact {noun}/{id}", f"is not in {self.location}", "groundup ls")
            target = self.root / REMOVED / removed_name(noun, id)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            flush(source.parent)
            flush(target.parent)
        return str(target)

    def removed(self) -> list[str]:
        """What `set_aside` keeps, oldest first."""
        with repair.reading(f"store {self.root}", self.root):
            return sorted((one.name for one in _folders(self.root / REMOVED) if parse_removed(one.name)), key=age)

    def bring_back(self, name: str) -> str:
        """Let what is kept under `name` be an artifact again; returns where. Raises ArtifactError if there is one in its stead."""
        key = kept(name, self.removed())
        source, target = self.root / REMOVED / name, self.path(*key)
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
            path = self.root / REMOVED / name
            if path.is_symlink():  # somebody put it in the artifact's stead; what it leads to is not ours
                path.unlink()
            else:
                shutil.rmtree(path)

    def follow(self, name: str, recipe: str, changes: Iterable[str]) -> None:
        """Remember the recipe that a whole run of `name` follows, and what differs from it."""
        with self._naming(name):
            self.names.follow(name, Followed(recipe=recipe, changes=tuple(changes)))

    def publish(
        self, noun: str, identity: Identity, inputs: Mapping[str, Artifact], settings: dict[str, Any], make: Make
    ) -> tuple[Artifact, bool]:
        """The artifact with this identity, and whether it was made now. `make` fills a draft and returns facts for the manifest.

        Two processes that want the same artifact: one makes it, the other waits and gets it.
        Raises ContractError if what was made breaks the contract, ArtifactError on disk faults; nothing is visible then.
        """
        draft = Draft(noun, self.root / "drafts" / f"{noun}-{identity.id}", self.contracts)
        with self.locked(identity.id):
            if self.has(noun, identity.id):
                shutil.rmtree(draft.place, ignore_errors=True)  # of a process that was killed just after its commit
                return self.open(noun, identity.id), False
            _require_described(identity, draft, inputs)
            with faults_told(f"{noun} in {self.root}", self.root, draft.files):
                self.clear(draft.files, self.path(noun, identity.id).parent)
                started = _now()
                facts = make(draft)
                files, rows = settle(draft, inputs)
                manifest = Manifest(
                    groundup=version("groundup"), id=identity.id, noun=noun, contract=str(draft.contract.version),
                    stage=identity.stage, stage_version=identity.stage_version, as_of=identity.as_of, config=identity.config,
                    settings=settings, inputs={name: _input(artifact) for name, artifact in inputs.items()},
                    rows=rows, facts=facts, files=files, started=started, finished=_now(),
                )  # fmt: skip
                written = _written(manifest)
                self.commit(draft.files, noun, identity.id, written)
            shutil.rmtree(draft.place, ignore_errors=True)
            return Artifact(self.path(noun, identity.id), manifest, sha256(written).hexdigest(), self.contracts), True

    def clear(self, files: Path, objects: Path) -> None:
        """An empty folder, on the filesystem of the objects: the rename at the end of long work must not fail for that."""
        if files.exists():
            shutil.rmtree(files)
        for folder in (files, objects):
            folder.mkdir(parents=True, exist_ok=True)
        if objects.stat().st_dev != files.stat().st_dev:
            raise ArtifactError(
                f"store {self.root}",
                f"{objects} and {files} are on two filesystems",
                "have the whole store on one, or give another with GROUNDUP_STORE",
            )

    def commit(self, files: Path, noun: str, id: str, manifest: bytes) -> None:
        """Let a folder of finished files appear as the artifact, at once."""
        with (files / MANIFEST).open("wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        for folder in [*(path for path in files.rglob("*") if path.is_dir()), files]:
            flush(folder)
        target = self.path(noun, id)
        if target.exists():  # a folder without manifest: the remains of an artifact that a person took apart
            shutil.rmtree(target)
        files.rename(target)
        for folder in (target.parent, target.parent.parent, self.root):
            flush(folder)

    def _naming(self, name: str) -> AbstractContextManager[None]:
        return faults_told(f"name {name}", self.root)

    @contextmanager
    def locked(self, id: str) -> Iterator[None]:
        folder = self.root / "locks"
        with faults_told(f"lock in {self.root}", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / id, os.O_CREAT | os.O_RDWR, 0o666)  # the umask says who else may
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                why = f"its filesystem gives no lock: {error.strerror}"
                raise ArtifactError(f"store {self.root}", why, "give a place on a filesystem with locks with GROUNDUP_STORE") from None
            yield
        finally:
            os.close(handle)


def _require_described(identity: Identity, draft: Draft, inputs: Mapping[str, Artifact]) -> None:
    """Refuse an identity that the manifest would not give back: `verify` computes every id again."""
    contract = f"{draft.noun} {draft.contract.version}"
    given = {name: artifact.id for name, artifact in inputs.items()}
    if (identity.contract, identity.inputs) != (contract, given):
        why = f"is of contract {identity.contract} and inputs {identity.inputs}, what is published of {contract} and {given}"
        raise ContractError(f"identity {identity.id}", why, CORRECT)


def _input(artifact: Artifact) -> InputRef:
    return InputRef(noun=artifact.noun, id=artifact.id, manifest_sha256=artifact.digest)


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def pointing_at(artifact: Artifact, run: str, digest: str | None) -> Pointing:
    """A ref's entry for an artifact, from now on."""
    made = artifact.manifest
    return Pointing(
        noun=made.noun, id=made.id, at=_now(), run=run, stage=made.stage, settings=made.settings, as_of=made.as_of,
        manifest_sha256=digest,
    )  # fmt: skip


def _written(manifest: Manifest) -> bytes:
    try:
        return manifest.model_dump_json(indent=1).encode()
    except ValueError as error:  # a numpy number, a Path … among the facts
        raise ContractError(
            f"facts of stage {manifest.stage}", f"are not plain JSON: {error}", "nothing was published; correct the stage"
        ) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
