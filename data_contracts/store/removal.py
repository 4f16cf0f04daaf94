"""Taking artifacts out of a store: never without saying what depends on them, and never for good at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.errors import ArtifactError, ConfigError, GroundupError
from data_contracts.store.identity import is_key
from data_contracts.store.local import Store
from data_contracts.store.refs import is_name
from data_contracts.store.removed import absent, kept, parse_removed
from data_contracts.store.verification import Held


@dataclass(frozen=True)
class Removal:
    """An artifact that is to go. refs: that point at it. downstream: artifacts made from it. unknown: what cannot be read."""

    artifact_type: str
    id: str
    refs: tuple[str, ...]
    downstream: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.artifact_type}/{self.id}"


def plan(store: Store, reference: str) -> Removal:
    """What `reference` (run/output, type/id or the beginning of an id) means, and all that depends on it, directly.

    Folders without a manifest, the remains of an artifact, are meant by their type and whole id.
    Raises ArtifactError if nothing of it is in the store.
    """
    artifact_type, id_ = _key(store, reference)
    if not store.holds(artifact_type, id_):
        raise _absent(store, artifact_type, id_)
    held = Held.by(store)
    refs = tuple(held.current.pointing_at(artifact_type, id_))
    downstream = tuple(held.downstream.get((artifact_type, id_), {}))
    unreadable = tuple(key for key in held.unreadable if key != f"{artifact_type}/{id_}")
    return Removal(artifact_type, id_, refs, downstream, (*held.current.unreadable, *unreadable))


def remove(store: Store, what: Removal) -> str:
    """Take it out of the store, and have the refs that point at it remember that; returns where it is kept.

    Refs first: an artifact that is made again in its stead has another manifest, which they must not call changed.
    """
    _mark(store, what.refs, (what.artifact_type, what.id), removed=True)
    try:
        return store.set_aside(what.artifact_type, what.id)
    except GroundupError:
        _mark(store, what.refs, (what.artifact_type, what.id), removed=False)
        raise


def restore(store: Store, reference: str) -> str:
    """Bring back what `reference` (type/id, or the name under which it is kept) meant and was removed last; returns where it is.

    Raises ConfigError if nothing of it is kept, ArtifactError if another making of it is in the store.
    """
    name = _newest_removed(store, reference)
    key = kept(name, store.removed())
    back = store.bring_back(name)
    if store.has(*key):  # the remains of an artifact come back, too, and are none
        digest = store.open(*key, verify=False).digest
        held = store.refs.current().pointing_at(*key)
        _mark(
            store,
            [ref for ref, entry in held.items() if entry.manifest_sha256 == digest],
            key,
            removed=False,
        )
    return back


def _mark(store: Store, refs: Sequence[str], key: tuple[str, str], removed: bool) -> None:
    """Let refs that point at an artifact remember that it was removed, or that it is there again."""
    for ref in refs:
        name, _, output = ref.partition("/")
        entry = store.refs.get(name, output)
        if entry and (entry.artifact_type, entry.id) == key and entry.removed != removed:
            run = "groundup rm" if removed else "groundup rm --restore"
            store.refs.set(name, output, entry.model_copy(update={"removed": removed, "run": run}))


def repair_ref(store: Store, reference: str) -> str | None:
    """Keep the newest entry of a ref aside if it cannot be read; returns where, or None if nothing is wrong with it."""
    name, slash, output = reference.partition("/")
    if not (slash and is_name(name) and is_name(output)):
        return None
    return store.refs.set_aside_newest(name, output)


def _newest_removed(store: Store, reference: str) -> str:
    """Under which name it is kept. Raises ConfigError if it is not."""
    names = store.removed()
    if reference in names:
        return reference
    found = [name for name in names if name.startswith(reference.replace("/", "-", 1) + "-")]
    if not found:
        fix = f"choose from: {', '.join(names)}" if names else "see what there is: groundup ls"
        raise ConfigError(f"removed artifact {reference!r}", "is not kept here", fix)
    return found[-1]


def _key(store: Store, reference: str) -> tuple[str, str]:
    artifact_type, _, id_ = reference.partition("/")
    return (artifact_type, id_) if is_key(artifact_type, id_) else store.resolve(reference)


def _absent(store: Store, artifact_type: str, id_: str) -> ArtifactError:
    """What to do about an artifact that is not there depends on who misses it."""
    key = f"{artifact_type}/{id_}"
    if any(parse_removed(name) == (artifact_type, id_) for name in store.removed()):
        return ArtifactError(
            f"artifact {key}",
            "was removed before",
            f"to bring it back: groundup rm --restore {key}",
        )
    refs = store.refs.current().pointing_at(artifact_type, id_)
    if not refs:
        return absent(artifact_type, id_, store.location)
    ref, entry = next(iter(refs.items()))
    why = f"is not in {store.location}, so there is nothing to remove; {', '.join(refs)} still points at it"
    fix = f"to make it again: groundup stage {entry.stage} --name {ref.partition('/')[0]}"
    return ArtifactError(f"artifact {key}", why, fix)
