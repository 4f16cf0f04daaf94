"""Is what the store has what was published? Files, rows, id and manifest of an artifact, or of all that belongs to a run.

The files are compared with the manifest, the rows with the contract and the manifest, the id with the settings and inputs that it is a hash
of, and the manifest with the digests that refs and manifests downstream hold of it. What proves the manifest is thus never the manifest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from data_contracts.errors import ArtifactError, ConfigError, GroundupError
from data_contracts.store import repair, seals
from data_contracts.store.artifact import Artifact
from data_contracts.store.local import Store, pointing_at
from data_contracts.store.refs import CurrentRefs, Ref, is_name
from data_contracts.store.repair import Damage
from data_contracts.store.seals import Seal

Key = tuple[str, str]


@dataclass(frozen=True)
class Verified:
    """An artifact that is what was published. notes: what a person should know beside that."""

    artifact: Artifact
    files: int
    rows: int
    seal: Seal
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Held:
    """What all refs and manifests of a store hold of its artifacts' manifests. unreadable: artifacts whose own is none."""

    store: Store
    current: CurrentRefs
    downstream: Mapping[Key, Mapping[str, str | None]]
    unreadable: tuple[str, ...]

    @classmethod
    def by(cls, store: Store) -> Held:
        """Reads every ref and every manifest that the store has."""
        downstream: dict[Key, dict[str, str | None]] = defaultdict(dict)
        unreadable = []
        for key in store.ids():
            try:
                artifact = store.open(*key, verify=False)
            except ArtifactError:
                unreadable.append("/".join(key))
                continue
            for ref in artifact.manifest.inputs.values():
                downstream[ref.artifact_type, ref.id][str(artifact)] = ref.manifest_sha256
        return cls(store, store.refs.current(), downstream, tuple(unreadable))

    def refs(self, artifact: Artifact) -> dict[str, Ref]:
        """The refs that point at the artifact now."""
        return self.current.pointing_at(artifact.artifact_type, artifact.id)

    def judge(self, artifact: Artifact) -> Seal:
        """Raises ArtifactError for a manifest that was changed."""
        return seals.judge(
            artifact,
            self.refs(artifact),
            lambda: self.downstream.get((artifact.artifact_type, artifact.id), {}),
        )

    def made_again(self, artifact: Artifact) -> bool:
        """Whether a ref says that another making of the artifact is as good as the first."""
        entries = self.refs(artifact).values()
        return any(entry.removed or entry.manifest_sha256 == artifact.digest for entry in entries)

    def notes(self) -> list[str]:
        """What could not be asked."""
        kinds = {"refs": self.current.unreadable, "manifests": self.unreadable}
        return [
            f"{len(lost)} {kind} cannot be read and were not asked: {', '.join(lost[:3])}"
            for kind, lost in kinds.items()
            if lost
        ]


def verify(artifact: Artifact, held: Held) -> Verified:
    """Compare everything that is known of an artifact.

    Raises:
        ArtifactError: Something is damaged, the manifest was changed, or a ref that points at the
            artifact was edited.
        ContractError: Rows break the contract or were miscounted.
    """
    found = _verify_content(artifact, held)
    pointed_at = held.refs(artifact)
    _check_refs(artifact, pointed_at)
    without_digest = [
        name
        for name, entry in pointed_at.items()
        if entry.manifest_sha256 is None and not entry.removed
    ]
    if not without_digest:
        return found
    notes = [
        f"{name} holds no digest of the manifest; to seal it: groundup seal {name}"
        for name in without_digest
    ]
    return replace(found, seal="unsealed", notes=(*notes, *found.notes))


def _check_refs(artifact: Artifact, pointed_at: Mapping[str, Ref]) -> None:
    """Compare what refs say of how the artifact was made with its manifest.

    A ref may point at an earlier making of the same artifact, which may have had other settings.

    Raises:
        ArtifactError: A ref of this making says something else.
    """
    manifest = artifact.manifest
    for name, entry in pointed_at.items():
        is_of_this_making = entry.manifest_sha256 == artifact.digest
        is_unsealed = entry.manifest_sha256 is None and not entry.removed
        fields = ["stage", "as_of"]
        if is_of_this_making or is_unsealed:
            fields.append("settings")
        wrong = [field for field in fields if getattr(entry, field) != getattr(manifest, field)]
        if wrong:
            why = (
                f"points at {artifact}, but its {' and '.join(wrong)} "
                f"{'is' if wrong in (['stage'], ['as_of']) else 'are'} not what the manifest says: "
                "the ref was edited"
            )
            fix = f"write it again as the manifest says: groundup seal {name}"
            raise ArtifactError(f"ref {name}", why, fix)


def _verify_content(artifact: Artifact, held: Held) -> Verified:
    """Compare files, rows, manifest and inputs of an artifact. Raises what `verify` raises."""
    artifact.verify()
    rows = artifact.check()
    seal = held.judge(artifact)
    marked = [name for name, entry in held.refs(artifact).items() if entry.removed]
    gone = [
        f"{name} says that it was removed; to let it point at this one: groundup seal {name}"
        for name in marked
    ]
    notes = (*_inputs(artifact, held), *gone, *held.notes())
    return Verified(artifact, len(artifact.manifest.files), rows, seal, notes)


def verify_run(store: Store, name: str) -> Iterator[tuple[str, Verified | GroundupError]]:
    """Every output of a run, then what is upstream of them: ("run/output" or "type/id", what was found).

    Raises ConfigError if there is no such run.
    """
    refs = store.refs.require_run(name)
    held = Held.by(store)
    waiting = [
        (f"{name}/{output}", (entry.artifact_type, entry.id)) for output, entry in refs.items()
    ]
    seen: set[Key] = set()
    while waiting:
        reference, key = waiting.pop(0)
        if key in seen:
            continue
        seen.add(key)
        try:
            found = verify(store.open(*key, verify=False), held)
        except GroundupError as error:
            yield reference, error
            continue
        yield reference, found
        inputs = [(ref.artifact_type, ref.id) for ref in found.artifact.manifest.inputs.values()]
        waiting += [("/".join(one), one) for one in inputs if store.has(*one)]


def seal(store: Store, name: str, output: str, held: Held) -> bool:
    """Let name/output hold the digest of its artifact's manifest, once the artifact is verified.

    The entry is written anew from the manifest, so this also repairs a ref that was edited.

    Returns:
        False if the ref says all this already.

    Raises:
        ConfigError: There is no such ref.
        ArtifactError, ContractError: The artifact is not what was published.
    """
    entry = store.refs.get(name, output) if is_name(name) and is_name(output) else None
    if entry is None:
        raise ConfigError(
            f"ref {name}/{output}", "does not exist", "see what there is: groundup ls"
        )
    artifact = store.open(entry.artifact_type, entry.id, verify=False)
    _verify_content(artifact, held)
    sealed = pointing_at(artifact, "groundup seal", artifact.digest)
    return store.refs.set(name, output, sealed)


def _inputs(artifact: Artifact, held: Held) -> Iterator[str]:
    """Notes on inputs; raises ArtifactError for one whose manifest was changed since the artifact was made from it."""
    for name, ref in artifact.manifest.inputs.items():
        key = f"{ref.artifact_type}/{ref.id}"
        if not held.store.has(ref.artifact_type, ref.id):
            yield f"its input {key} ({name}) is no longer in the store"
            continue
        source = held.store.open(ref.artifact_type, ref.id, verify=False)
        if ref.manifest_sha256 in (None, source.digest):
            continue
        if held.made_again(source):
            yield f"its input {key} ({name}) was made again since"
            continue
        why = f"the manifest of its input {key} ({name}) is not the one that it was made from: it was changed since"
        damage = Damage(why, "content", source.place)
        fix = repair.advice(key, [damage], source.manifest.stage, source.manifest.seconds)
        raise ArtifactError(f"artifact {artifact}", why, fix)
