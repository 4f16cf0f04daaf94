"""What a store holds of its artifacts elsewhere than in them: refs, and manifests downstream."""

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

Key = tuple[str, str]
_MAX_SHOWN = 3  # names in a note


@dataclass(frozen=True)
class Held:
    """What all refs and manifests of a store hold of its artifacts.

    Attributes:
        store: The store.
        current: Its refs.
        downstream: For each artifact, the digest that each artifact made from it holds of it.
        unreadable: Artifacts whose manifest cannot be read.
    """

    store: Store
    current: CurrentRefs
    downstream: Mapping[Key, Mapping[str, str | None]]
    unreadable: tuple[str, ...]

    @classmethod
    def by(cls, store: Store) -> Held:
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
        """The refs that point at the artifact now."""
        return self.current.pointing_at(artifact.artifact_type, artifact.id)

    def judge(self, artifact: Artifact) -> Seal:
        """Whether a digest of the manifest is held. Raises ArtifactError if it was changed."""
        made_from = self.downstream.get((artifact.artifact_type, artifact.id), {})
        return seals.judge(artifact, self.refs(artifact), lambda: made_from)

    def is_made_again(self, artifact: Artifact) -> bool:
        """Whether a ref allows an artifact that was rebuilt."""
        entries = self.refs(artifact).values()
        return any(entry.removed or entry.manifest_sha256 == artifact.digest for entry in entries)

    def notes(self) -> list[str]:
        """Which refs and manifests could not be read."""
        kinds = {"refs": self.current.unreadable, "manifests": self.unreadable}
        notes = []
        for kind, names in kinds.items():
            if names:
                shown = ", ".join(names[:_MAX_SHOWN])
                notes.append(f"{len(names)} {kind} cannot be read and were skipped: {shown}")
        return notes
