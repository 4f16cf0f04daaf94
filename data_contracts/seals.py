"""Is the manifest of an artifact the one that others were pointed at? A ref and a manifest downstream hold its sha256.

The newest entry of each ref counts, and of several refs one is enough: an artifact that was removed and made again has a new manifest
(it says when it was made) under the same id, and only the ref of the run that made it knows. Manifests downstream, which lie beside the
one in question, are asked where no ref holds anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from data_contracts import repair
from data_contracts.artifact import Artifact
from data_contracts.errors import ArtifactError
from data_contracts.repair import Damage

if TYPE_CHECKING:
    from data_contracts.names import Names, Pointing

Seal = Literal["sealed", "unsealed"]


def require(pointing: Pointing, ref: str, artifact: Artifact, refs: Names) -> None:
    """Refuse an artifact whose manifest is not the one that `ref` was pointed at, nor any other ref.

    Raises ArtifactError.
    """
    if pointing.removed or pointing.manifest_sha256 in (None, artifact.digest):
        return
    pointed_at = refs.newest().at(artifact.noun, artifact.id)
    digests = {name: digest_of(entry, artifact) for name, entry in pointed_at.items()}
    judge(artifact, {ref: pointing.manifest_sha256} | digests)


def held(newest: Pointing | None, artifact: Artifact, refs: Names) -> str | None:
    """The digest that a ref may hold which is pointed at an artifact that was there before; None: it stays unsealed.

    Raises ArtifactError if other refs were pointed at another manifest, and none at this.
    """
    if newest and (newest.noun, newest.id) == (artifact.noun, artifact.id):
        if newest.removed or newest.manifest_sha256 == artifact.digest:
            return artifact.digest
        if newest.manifest_sha256 is None:
            return None
    pointed_at = refs.newest().at(artifact.noun, artifact.id)
    judge(artifact, {name: digest_of(entry, artifact) for name, entry in pointed_at.items()})
    return artifact.digest


def digest_of(entry: Pointing, artifact: Artifact) -> str | None:
    """What a ref says of the manifest. One whose artifact was removed says nothing against another making of it."""
    if entry.removed and entry.manifest_sha256 != artifact.digest:
        return None
    return entry.manifest_sha256


def judge(artifact: Artifact, digests: Mapping[str, str | None]) -> Seal:
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
    fix = repair.advice(str(artifact), [Damage(why, "content", artifact.place)], manifest.stage, manifest.seconds)
    raise ArtifactError(f"artifact {artifact}", why, fix)
