"""How many documents each data stage kept and lost, and why: from manifests alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data_contracts import Manifest

# artifact_type → (stage, tables of documents that go on, table of those that do not)
_TABLES = {
    "raw_documents": ("crawl", ("documents",), "failures"),
    "clean_documents": ("clean", ("documents",), "rejects"),
    "unique_documents": ("dedup", ("train", "heldout"), "rejects"),
    "training_documents": ("decontaminate", ("documents",), "rejects"),
}


@dataclass(frozen=True)
class Step:
    """kept: table → rows. lost: reason → rows, most first."""

    stage: str
    kept: dict[str, int]
    lost: dict[str, int]

    @property
    def rows_kept(self) -> int:
        return sum(self.kept.values())

    @property
    def rows_lost(self) -> int:
        return sum(self.lost.values())


def funnel(manifests: Iterable[Manifest]) -> list[Step]:
    """A step for each data stage among the manifests, in the order of work."""
    by_type = {manifest.artifact_type: manifest for manifest in manifests}
    return [
        _step(by_type[artifact_type], *tables)
        for artifact_type, tables in _TABLES.items()
        if artifact_type in by_type
    ]


def _step(manifest: Manifest, stage: str, kept: tuple[str, ...], rejects: str) -> Step:
    reasons = {
        reason: count for reason, count in manifest.facts.get("rejected", {}).items() if count
    }
    if sum(reasons.values()) != manifest.rows[rejects]:  # the table is the witness
        reasons = {"any reason": manifest.rows[rejects]} if manifest.rows[rejects] else {}
    lost = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return Step(stage, {table: manifest.rows[table] for table in kept}, lost)
