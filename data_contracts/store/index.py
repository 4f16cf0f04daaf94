"""Which refs point at an artifact, and which artifacts were made from it.

Both hold the digest of its manifest. A store keeps no index on disk: it is read from all refs and
manifests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_contracts.errors import ArtifactError
from data_contracts.store import seals
from data_contracts.store.artifact import Artifact
from data_contracts.store.refs import CurrentRefs, Ref
from data_contracts.store.seals import Seal

if TYPE_CHECKING:
    from data_contracts.store.local import Store

Key = tuple[str, str]  # type and id of an artifact
_MAX_SHOWN = 3  # names in a note


@dataclass(frozen=True)
class StoreIndex:
    """What all refs and manifests of a store say about its artifacts.

    Attributes:
        store: The store.
        current: Its refs.
        downstream: For each artifact, the digest of its manifest in each artifact made from it.
        unreadable: Artifacts whose manifest cannot be read.
    """

    store: Store
    current: CurrentRefs
    downstream: Mapping[Key, Mapping[str, str | None]]
    unreadable: tuple[str, ...]

    @classmethod
    def read(cls, store: Store) -> StoreIndex:
        """Read every ref and every manifest of the store."""
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
        """Return the refs that point at the artifact now."""
        return self.current.pointing_at(artifact.artifact_type, artifact.id)

    def check_seal(self, artifact: Artifact) -> Seal:
        """Compare the manifest of an artifact with the digests of it in refs and downstream.

        Raises:
            ArtifactError: There are digests, and none is this manifest's.
        """
        made_from = self.downstream.get((artifact.artifact_type, artifact.id), {})
        return seals.check_seal(artifact, self.refs(artifact), lambda: made_from)

    def is_rebuilt(self, artifact: Artifact) -> bool:
        """Return whether a ref allows an artifact that was rebuilt."""
        entries = self.refs(artifact).values()
        return any(entry.removed or entry.manifest_sha256 == artifact.digest for entry in entries)

    def notes(self) -> list[str]:
        """Return which refs and manifests could not be read."""
        kinds = {"refs": self.current.unreadable, "manifests": self.unreadable}
        notes = []
        for kind, names in kinds.items():
            if names:
                shown = ", ".join(names[:_MAX_SHOWN])
                notes.append(f"{len(names)} {kind} cannot be read and were skipped: {shown}")
        return notes
