"""How many documents each data stage kept and lost, and why, read from manifests alone."""

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
    """One data stage of the funnel.

    Attributes:
        stage: The name of the stage.
        kept: table → rows.
        lost: reason → rows, largest count first.
    """

    stage: str
    kept: dict[str, int]
    lost: dict[str, int]

    @property
    def rows_kept(self) -> int:
        """The rows of all tables of documents that go on."""
        return sum(self.kept.values())

    @property
    def rows_lost(self) -> int:
        """The rows that were lost for any reason."""
        return sum(self.lost.values())


def funnel(manifests: Iterable[Manifest]) -> list[Step]:
    """Return a step for each data stage among the manifests, in the order of the pipeline."""
    by_type = {manifest.artifact_type: manifest for manifest in manifests}
    steps = []
    for artifact_type, (stage, kept, rejects) in _TABLES.items():
        if artifact_type in by_type:
            steps.append(_step(by_type[artifact_type], stage, kept, rejects))
    return steps


def _step(manifest: Manifest, stage: str, kept: tuple[str, ...], rejects: str) -> Step:
    rejected = manifest.facts.get("rejected", {})
    reasons = {reason: count for reason, count in rejected.items() if count}
    rows_lost = manifest.rows[rejects]
    if sum(reasons.values()) != rows_lost:  # the table decides what is true
        reasons = {"any reason": rows_lost} if rows_lost else {}
    lost = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return Step(stage, {table: manifest.rows[table] for table in kept}, lost)
