"""Is the manifest of an artifact the one that others were pointed at? A ref and a manifest downstream hold its sha256.

The newest entry of each ref counts, and of several refs one is enough: an artifact that was removed and made again has a new manifest
(it says when it was made) under the same id, and only the ref of the run that made it knows. Manifests downstream, which lie beside the
one in question, are asked where no ref holds anything.
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


def agrees(ref: Ref, artifact: Artifact) -> bool:
    """Whether a ref points at the artifact and holds the digest of this very manifest."""
    return (ref.artifact_type, ref.id, ref.manifest_sha256) == (
        artifact.artifact_type,
        artifact.id,
        artifact.digest,
    )


def judge(
    artifact: Artifact,
    pointed_at: Mapping[str, Ref],
    downstream: Callable[[], Mapping[str, str | None]],
) -> Seal:
    """Refs count before manifests downstream, which lie where the artifact lies and are asked where no ref holds anything.

    pointed_at: the refs that point at the artifact. downstream: gives what manifests of artifacts made from it hold.
    Raises ArtifactError for a manifest that was changed. One that was removed and made again is not, whatever is downstream.
    """
    refs = {name: _digest_of(entry, artifact) for name, entry in pointed_at.items()}
    if any(refs.values()):
        return _judge(artifact, refs)
    made_from = downstream()
    if any(entry.removed for entry in pointed_at.values()):
        made_from = {
            name: digest for name, digest in made_from.items() if digest == artifact.digest
        }
    return _judge(artifact, made_from)


def _digest_of(entry: Ref, artifact: Artifact) -> str | None:
    """What a ref says of the manifest. One whose artifact was removed says nothing against another making of it."""
    if entry.removed and entry.manifest_sha256 != artifact.digest:
        return None
    return entry.manifest_sha256


def _judge(artifact: Artifact, digests: Mapping[str, str | None]) -> Seal:
    """digests: what each ref, or each manifest downstream, holds of the artifact's manifest.

    Raises ArtifactError if some hold one, and none of them this.
    """
    said = {holder: digest for holder, digest in digests.items() if digest}
    if artifact.digest in said.values():
        return "sealed"
    if not said:
        return "unsealed"
    manifest = artifact.manifest
    shown = ", ".join(list(said)[:3])
    why = f"its manifest is not the one that {shown} {'was' if len(said) == 1 else 'were'} pointed at: it was changed since"
    fix = repair.advice(
        str(artifact), [Damage(why, "content", artifact.place)], manifest.stage, manifest.seconds
    )
    raise ArtifactError(f"artifact {artifact}", why, fix)
