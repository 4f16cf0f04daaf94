"""Checks that stored artifacts are unchanged since they were published: one, or those of a run.

Files are compared with the manifest, rows with the contract and the manifest, and the id with the
settings and inputs that it is a hash of. The manifest is compared with the digests that refs and
manifests downstream hold of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from data_contracts.errors import ArtifactError, ConfigError, GroundupError
from data_contracts.store import repair
from data_contracts.store.artifact import Artifact
from data_contracts.store.index import Key, StoreIndex
from data_contracts.store.local import Store
from data_contracts.store.publishing import ref_to
from data_contracts.store.refs import Ref, is_name
from data_contracts.store.repair import Damage
from data_contracts.store.seals import Seal


@dataclass(frozen=True)
class Verified:
    """An artifact that is what was published.

    Attributes:
        artifact: The artifact.
        files: How many files were compared.
        rows: How many rows were checked.
        seal: Whether others hold the digest of its manifest.
        notes: What else a person should know.
    """

    artifact: Artifact
    files: int
    rows: int
    seal: Seal
    notes: tuple[str, ...]


def verify(artifact: Artifact, index: StoreIndex) -> Verified:
    """Compare everything that is known of an artifact with what is there.

    Args:
        artifact: The artifact.
        index: The refs and manifests of its store.

    Raises:
        ArtifactError: Something is damaged, the manifest was changed, or a ref that points at the
            artifact was edited.
        ContractError: Rows break the contract or were miscounted.
    """
    found = _verify_content(artifact, index)
    pointed_at = index.refs(artifact)
    _check_refs(artifact, pointed_at)
    notes = []
    for name, entry in pointed_at.items():
        if _is_unsealed(entry):
            notes.append(
                f"{name} holds no digest of the manifest; to seal it: groundup seal {name}"
            )
    if not notes:
        return found
    return replace(found, seal="unsealed", notes=(*notes, *found.notes))


def _is_unsealed(entry: Ref) -> bool:
    """Return whether a ref holds no digest of the artifact that it points at."""
    return entry.manifest_sha256 is None and not entry.removed


def _check_refs(artifact: Artifact, pointed_at: Mapping[str, Ref]) -> None:
    """Compare what refs say of how the artifact was made with its manifest.

    A ref may point at an earlier making of the same artifact, which may have had other settings.

    Raises:
        ArtifactError: A ref of this making says something else.
    """
    manifest = artifact.manifest
    for name, entry in pointed_at.items():
        is_of_this_making = entry.manifest_sha256 == artifact.digest
        fields = ["stage", "as_of"]
        if is_of_this_making or _is_unsealed(entry):
            fields.append("settings")
        wrong = [field for field in fields if getattr(entry, field) != getattr(manifest, field)]
        if wrong:
            is_or_are = "is" if len(wrong) == 1 and wrong[0] != "settings" else "are"
            why = (
                f"points at {artifact}, but its {' and '.join(wrong)} {is_or_are} "
                "not what the manifest says: the ref was edited"
            )
            fix = f"write it again as the manifest says: groundup seal {name}"
            raise ArtifactError(f"ref {name}", why, fix)


def _verify_content(artifact: Artifact, index: StoreIndex) -> Verified:
    """Compare files, rows, manifest and inputs of an artifact. Raises what `verify` raises."""
    artifact.verify()
    rows = artifact.check()
    seal = index.check_seal(artifact)
    notes = list(_input_notes(artifact, index))
    for name, entry in index.refs(artifact).items():
        if entry.removed:
            fix = f"to let it point at this one: groundup seal {name}"
            notes.append(f"{name} says that it was removed; {fix}")
    notes += index.notes()
    return Verified(artifact, len(artifact.manifest.files), rows, seal, tuple(notes))


def verify_run(store: Store, name: str) -> Iterator[tuple[str, Verified | GroundupError]]:
    """Verify every output of a run, then everything upstream of them.

    Args:
        store: The store.
        name: The run.

    Yields:
        "run/output" or "type/id", and what was found.

    Raises:
        ConfigError: There is no such run.
    """
    refs = store.refs.require_run(name)
    index = StoreIndex.read(store)
    waiting: deque[tuple[str, Key]] = deque()
    for output, entry in refs.items():
        waiting.append((f"{name}/{output}", entry.key))
    seen: set[Key] = set()
    while waiting:
        reference, key = waiting.popleft()
        if key in seen:
            continue
        seen.add(key)
        try:
            found = verify(store.open(*key, verify=False), index)
        except GroundupError as error:
            yield reference, error
            continue
        yield reference, found
        for ref in found.artifact.manifest.inputs.values():
            if store.has(ref.artifact_type, ref.id):
                waiting.append((f"{ref.artifact_type}/{ref.id}", (ref.artifact_type, ref.id)))


def seal(store: Store, name: str, output: str, index: StoreIndex) -> bool:
    """Let name/output hold the digest of its artifact's manifest, once the artifact is verified.

    The entry is written anew from the manifest, so this also repairs a ref that was edited.

    Args:
        store: The store.
        name: The run.
        output: The output.
        index: The refs and manifests of the store.

    Returns:
        False if the ref says all this already.

    Raises:
        ConfigError: There is no such ref.
        ArtifactError, ContractError: The artifact is not what was published.
    """
    entry = store.refs.get(name, output) if is_name(name) and is_name(output) else None
    if entry is None:
        fix = "see what there is: groundup ls"
        raise ConfigError(f"ref {name}/{output}", "does not exist", fix)
    artifact = store.open(*entry.key, verify=False)
    _verify_content(artifact, index)
    return store.refs.set(name, output, ref_to(artifact, "groundup seal", artifact.digest))


def _input_notes(artifact: Artifact, index: StoreIndex) -> Iterator[str]:
    """Yield notes on inputs that are gone or were rebuilt.

    Raises:
        ArtifactError: The manifest of an input was changed since the artifact was made from it.
    """
    for name, ref in artifact.manifest.inputs.items():
        key = f"{ref.artifact_type}/{ref.id}"
        if not index.store.has(ref.artifact_type, ref.id):
            yield f"its input {key} ({name}) is no longer in the store"
            continue
        source = index.store.open(ref.artifact_type, ref.id, verify=False)
        if ref.manifest_sha256 in (None, source.digest):
            continue
        if index.is_rebuilt(source):
            yield f"its input {key} ({name}) was made again since"
            continue
        why = (
            f"the manifest of its input {key} ({name}) is not the one that it was made from: "
            "it was changed since"
        )
        damage = Damage(why, "content", source.folder)
        fix = repair.advice(key, [damage], source.manifest.stage, source.manifest.seconds)
        raise ArtifactError(f"artifact {artifact}", why, fix)
