"""The only way to make an artifact: write into a draft, have it checked against its contract, let it appear at once.

A draft lies on the filesystem of the store. What is under `files/` becomes the artifact; `scratch/` is the stage's own
(journals, intermediate checkpoints) and survives a kill, so that a rerun continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts import bundles, check
from data_contracts.contract import SHIPPED, Contract, Contracts
from data_contracts.errors import ContractError
from data_contracts.files import CORRECT, flush, is_plain, listing, refusal, sha256
from data_contracts.store.artifact import MANIFEST, Artifact, FileEntry
from data_contracts.store.writer import TableWriter

MAX_SHARDS = 100_000  # five digits, so that the order of names is the order of shards


@dataclass(frozen=True)
class Draft:
    """Cheap to copy and to send to worker processes: it holds only the place and the artifact type."""

    artifact_type: str
    place: Path
    contracts: Contracts = SHIPPED

    @property
    def contract(self) -> Contract:
        return self.contracts.current(self.artifact_type)

    @property
    def files(self) -> Path:
        return self.place / "files"

    @property
    def scratch(self) -> Path:
        """A folder that is never published and outlives a kill; emptied only by the commit."""
        path = self.place / "scratch"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def writer(self, table: str, shard: int = 0) -> TableWriter:
        """Writes one shard of a table; any number may be open at once, in any process, each shard once."""
        if table not in self.contract.tables:
            raise ContractError(
                f"contract {self.artifact_type}",
                f"has no table {table!r}",
                f"choose from: {', '.join(self.contract.tables)}",
            )
        if not 0 <= shard < MAX_SHARDS:
            raise ContractError(
                f"shard {shard} of {self.artifact_type}.{table}",
                f"is not in 0..{MAX_SHARDS - 1}",
                "write fewer, larger shards",
            )
        return TableWriter(self.contract, table, self.files / table / f"part-{shard:05d}.parquet")

    def write(self, table: str, rows: pa.Table | Sequence[Mapping[str, Any]]) -> None:
        """Write a whole table as one shard."""
        with self.writer(table) as writer:
            writer.write(rows)

    def path(self, relative: str) -> Path:
        """Where to write a file of the artifact, e.g. `model.safetensors`; its folder is made."""
        if not is_plain(relative) or relative == MANIFEST:
            raise ContractError(
                f"file {relative!r} of {self.artifact_type}",
                "is not a plain relative path",
                "write e.g. warc/pages-00000.warc.gz",
            )
        path = self.files / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def settle(draft: Draft, inputs: Mapping[str, Artifact]) -> tuple[list[FileEntry], dict[str, int]]:
    """Check a finished draft against its contract and list its files; every file is on disk when this returns.

    Raises ContractError that tells every violation found (at most 20).
    """
    contract = draft.contract
    for table in contract.tables:
        if not any((draft.files / table).glob("*.parquet")):
            draft.writer(
                table
            ).close()  # an empty table is a file too, so that readers need no special case
    told = bundles.problems(contract, draft.files)
    rows = {}
    for table in contract.tables:
        rows[table], violations = check.table(contract, table, draft.files)
        told += violations
    if not told:
        told = _not_conserved(draft, inputs)
    if told:
        raise refusal(
            f"{draft.artifact_type} (contract {contract.version})",
            told,
            f"{CORRECT} (see {draft.files})",
        )
    entries = []
    for name in listing(draft.files):
        path = draft.files / name
        flush(path)
        entries.append(FileEntry(path=name, bytes=path.stat().st_size, sha256=sha256(path)))
    return entries, rows


def _not_conserved(draft: Draft, inputs: Mapping[str, Artifact]) -> list[str]:
    """Compares the primary keys of what came in with those of what goes out, as 64-bit hashes: 8 bytes a row."""
    rule = draft.contract.conservation
    if rule is None:
        return []
    artifact_type, table = rule.source.split(".")
    source = next(
        (artifact for artifact in inputs.values() if artifact.artifact_type == artifact_type), None
    )
    if source is None:
        return [
            f"rows of {artifact_type}.{table} must be conserved, and no {artifact_type} came in"
        ]
    key = str(draft.contract.primary_key(rule.into[0]))
    before = check.keys(batch.column(0) for batch in source.batches(table, [key]))
    parts = {name: check.keys(check.column(draft.files, name, key)) for name in rule.into}
    after = np.concatenate(list(parts.values()))
    if np.array_equal(np.sort(before), np.sort(after)):
        return []
    went = np.unique(after)
    lost, made_up, again = (
        len(np.setdiff1d(before, went)),
        len(np.setdiff1d(went, before)),
        len(after) - len(went),
    )
    shown = " + ".join(f"{len(found):,} {name}" for name, found in parts.items())
    return [
        f"{len(before):,} rows of {artifact_type}.{table} came in, {shown} = {len(after):,} went out: "
        f"{lost:,} lost, {made_up:,} made up, {again:,} there again"
    ]
