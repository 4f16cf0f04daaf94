"""Is the manifest of an artifact still the one that refs were pointed at?

A ref, and a manifest downstream, hold the sha256 of the manifest. The newest entry of each ref
counts, and one agreeing ref is enough: an artifact that was removed and rebuilt has a new
manifest (it says when it was made) under the same id, and only the ref of the run that made it has
the new digest. Manifests downstream lie beside the one in question, so they count only if no ref
holds a digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from data_contracts.errors import ArtifactError
from data_contracts.store import repair
from data_contracts.store.artifact import Artifact
from data_contracts.store.repair import Damage

if TYPE_CHECKING:
    from data_contracts.store.refs import Ref

Seal = Literal["sealed", "unsealed"]
_MAX_HOLDERS = 3  # that an error names


def agrees(ref: Ref, artifact: Artifact) -> bool:
    """Return whether a ref points at the artifact and holds the digest of this very manifest."""
    return ref.key == (artifact.artifact_type, artifact.id) and (
        ref.manifest_sha256 == artifact.digest
    )


def check_seal(
    artifact: Artifact,
    pointed_at: Mapping[str, Ref],
    downstream: Callable[[], Mapping[str, str | None]],
) -> Seal:
    """Compare the manifest of an artifact with the digests that are held of it.

    Args:
        artifact: The artifact.
        pointed_at: The refs that point at it.
        downstream: Gives the digests that manifests of artifacts made from it hold. It is called
            only if no ref holds a digest.

    Returns:
        Whether any digest is held.

    Raises:
        ArtifactError: The manifest was changed. An artifact that was removed and rebuilt has not
            been changed, whatever manifests downstream hold.
    """
    was_removed = False
    digests: dict[str, str | None] = {}
    for name, entry in pointed_at.items():
        was_removed = was_removed or entry.removed
        digests[name] = _digest_of(entry, artifact)
    if any(digests.values()):
        return _compare(artifact, digests)
    digests = dict(downstream())
    if was_removed:
        digests = {name: held for name, held in digests.items() if held == artifact.digest}
    return _compare(artifact, digests)


def _digest_of(entry: Ref, artifact: Artifact) -> str | None:
    """Return the digest that a ref holds, if it concerns this making of the artifact.

    A ref whose artifact was removed says nothing about another making of it.
    """
    if entry.removed and entry.manifest_sha256 != artifact.digest:
        return None
    return entry.manifest_sha256


def _compare(artifact: Artifact, digests: Mapping[str, str | None]) -> Seal:
    """Compare the digest of the artifact's manifest with those that others hold of it.

    Args:
        artifact: The artifact.
        digests: The digest that each ref, or each manifest downstream, holds.

    Raises:
        ArtifactError: There are digests, and none is that of the artifact.
    """
    held = {holder: digest for holder, digest in digests.items() if digest}
    if artifact.digest in held.values():
        return "sealed"
    if not held:
        return "unsealed"
    manifest = artifact.manifest
    holders = ", ".join(list(held)[:_MAX_HOLDERS])
    why = (
        f"its manifest is not the one that {holders} {'was' if len(held) == 1 else 'were'} "
        "pointed at: it was changed since"
    )
    damage = Damage(why, "content", artifact.folder)
    fix = repair.advice(str(artifact), [damage], manifest.stage, manifest.seconds)
    raise ArtifactError(f"artifact {artifact}", why, fix)
