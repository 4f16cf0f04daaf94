"""Taking artifacts out of a store, after naming what depends on them; they are kept aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.errors import ArtifactError, ConfigError, GroundupError
from data_contracts.store.identity import is_key
from data_contracts.store.index import StoreIndex
from data_contracts.store.local import Store
from data_contracts.store.refs import is_name
from data_contracts.store.removed import absent, kept, parse_removed


@dataclass(frozen=True)
class Removal:
    """An artifact that is to be removed, and what depends on it.

    Attributes:
        artifact_type: Its type.
        id: Its id.
        refs: The refs that point at it.
        downstream: The artifacts that were made from it.
        unknown: Refs and artifacts that cannot be read, and so may depend on it as well.
    """

    artifact_type: str
    id: str
    refs: tuple[str, ...]
    downstream: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def key(self) -> str:
        """ "type/id"."""
        return f"{self.artifact_type}/{self.id}"


def plan(store: Store, reference: str) -> Removal:
    """Find the artifact that `reference` means, and everything that depends on it directly.

    Args:
        store: The store.
        reference: run/output, type/id or the beginning of an id. A folder without a manifest, the
            remains of an artifact, is named by its type and whole id.

    Raises:
        ArtifactError: The store has neither the artifact nor remains of it.
    """
    artifact_type, id_ = _key(store, reference)
    if not store.holds(artifact_type, id_):
        raise _absent(store, artifact_type, id_)
    index = StoreIndex.read(store)
    refs = tuple(index.current.pointing_at(artifact_type, id_))
    downstream = tuple(index.downstream.get((artifact_type, id_), {}))
    unreadable = [key for key in index.unreadable if key != f"{artifact_type}/{id_}"]
    return Removal(artifact_type, id_, refs, downstream, (*index.current.unreadable, *unreadable))


def remove(store: Store, removal: Removal) -> str:
    """Move an artifact out of the store, and mark the refs that point at it.

    The refs come first: an artifact that is rebuilt has another manifest, and the refs must not
    call it changed.

    Returns:
        Where the artifact is kept.
    """
    key = (removal.artifact_type, removal.id)
    _mark(store, removal.refs, key, removed=True)
    try:
        return store.set_aside(*key)
    except GroundupError:
        _mark(store, removal.refs, key, removed=False)
        raise


def restore(store: Store, reference: str) -> str:
    """Bring back the artifact that was removed last under `reference`.

    Args:
        store: The store.
        reference: type/id, or the name under which the artifact is kept.

    Returns:
        Where it is.

    Raises:
        ConfigError: Nothing of that name is kept.
        ArtifactError: Another making of it is in the store.
    """
    name = _newest_removed(store, reference)
    key = kept(name, store.removed())
    path = store.bring_back(name)
    if store.has(*key):  # what comes back may also be the remains of an artifact
        digest = store.open(*key, verify=False).digest
        pointing = store.refs.current().pointing_at(*key)
        refs = [ref for ref, entry in pointing.items() if entry.manifest_sha256 == digest]
        _mark(store, refs, key, removed=False)
    return path


def _mark(store: Store, refs: Sequence[str], key: tuple[str, str], removed: bool) -> None:
    """Let refs that point at an artifact remember that it was removed, or that it exists again."""
    made_by = "groundup rm" if removed else "groundup rm --restore"
    for ref in refs:
        name, _, output = ref.partition("/")
        entry = store.refs.get(name, output)
        if entry and entry.key == key and entry.removed != removed:
            changed = {"removed": removed, "made_by": made_by}
            store.refs.set(name, output, entry.model_copy(update=changed))


def repair_ref(store: Store, reference: str) -> str | None:
    """Keep the newest entry of a ref aside if it is damaged.

    Returns:
        Where the entry is kept, or None if nothing is wrong with it.
    """
    name, slash, output = reference.partition("/")
    if not (slash and is_name(name) and is_name(output)):
        return None
    return store.refs.set_aside_newest(name, output)


def _newest_removed(store: Store, reference: str) -> str:
    """Return the name under which an artifact is kept. Raises ConfigError if it is not."""
    names = store.removed()
    if reference in names:
        return reference
    beginning = reference.replace("/", "-", 1) + "-"
    found = [name for name in names if name.startswith(beginning)]
    if not found:
        fix = f"choose from: {', '.join(names)}" if names else "see what there is: groundup ls"
        raise ConfigError(f"removed artifact {reference!r}", "is not kept here", fix)
    return found[-1]


def _key(store: Store, reference: str) -> tuple[str, str]:
    artifact_type, _, id_ = reference.partition("/")
    return (artifact_type, id_) if is_key(artifact_type, id_) else store.resolve(reference)


def _absent(store: Store, artifact_type: str, id_: str) -> ArtifactError:
    """Return the error for an artifact that does not exist.

    The advice depends on what points at it.
    """
    key = f"{artifact_type}/{id_}"
    if (artifact_type, id_) in map(parse_removed, store.removed()):
        fix = f"to bring it back: groundup rm --restore {key}"
        return ArtifactError(f"artifact {key}", "was removed before", fix)
    refs = store.refs.current().pointing_at(artifact_type, id_)
    if not refs:
        return absent(artifact_type, id_, store.location)
    ref, entry = next(iter(refs.items()))
    why = (
        f"is not in {store.location}, so there is nothing to remove; "
        f"{', '.join(refs)} still points at it"
    )
    fix = f"to make it again: groundup stage {entry.stage} --name {ref.partition('/')[0]}"
    return ArtifactError(f"artifact {key}", why, fix)
