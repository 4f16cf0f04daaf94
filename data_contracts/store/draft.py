"""The only way to make an artifact: write a draft, and have it checked against its contract.

A draft lies on the filesystem of the store. What is under `files/` becomes the artifact. The stage
keeps journals and resume checkpoints under `scratch/`, which survives a kill, so a rerun continues.
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
from data_contracts.errors import CORRECT, ContractError, refusal
from data_contracts.files import flush, is_plain, listing, sha256
from data_contracts.store.address import StoreKey, in_folder
from data_contracts.store.artifact import MANIFEST, Artifact, FileEntry
from data_contracts.store.writer import TableWriter

MAX_SHARDS = 100_000  # five digits, so that the order of names is the order of shards


@dataclass(frozen=True)
class Draft:
    """An artifact that is being written. Cheap to copy and to send to workers.

    Attributes:
        artifact_type: The type of the artifact.
        key: Where it is in the store.
        contracts: The contracts to check it against.
    """

    artifact_type: str
    key: StoreKey
    contracts: Contracts = SHIPPED

    @classmethod
    def in_folder(cls, artifact_type: str, folder: Path, contracts: Contracts = SHIPPED) -> Draft:
        """Return a draft in a folder of this machine, outside any store."""
        return cls(artifact_type, in_folder(folder), contracts)

    @property
    def folder(self) -> Path:
        """The folder on this machine that holds `files/` and `scratch/`."""
        return self.key.folder

    @property
    def contract(self) -> Contract:
        """The contract that the draft is written under."""
        return self.contracts.current(self.artifact_type)

    @property
    def files(self) -> Path:
        """The folder that becomes the artifact."""
        return self.folder / "files"

    @property
    def scratch(self) -> Path:
        """A folder that is never published and survives a kill. Only the commit empties it."""
        path = self.folder / "scratch"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def writer(self, table: str, shard: int = 0) -> TableWriter:
        """Return a writer of one shard of a table.

        Any number may be open at once, in any process, but each shard is written once.

        Args:
            table: The table.
            shard: The number of the shard, from 0. Readers see shards in this order.

        Raises:
            ContractError: The contract has no such table, or the shard is out of range.
        """
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
        """Return where to write a file of the artifact, e.g. `model.safetensors`. Makes its folder.

        Raises:
            ContractError: `relative` leads out of the draft, or is not a plain path.
        """
        if not is_plain(relative) or relative == MANIFEST:
            raise ContractError(
                f"file {relative!r} of {self.artifact_type}",
                "is not a plain relative path",
                "write e.g. warc/pages-00000.warc.gz",
            )
        path = self.files / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def checked_files(
    draft: Draft, inputs: Mapping[str, Artifact]
) -> tuple[list[FileEntry], dict[str, int]]:
    """Check a finished draft against its contract, and list its files.

    Every file is on the disk when this returns.

    Args:
        draft: The finished draft.
        inputs: The artifacts that it was made from, by input name.

    Returns:
        The files, and the number of rows of each table.

    Raises:
        ContractError: The draft breaks the contract. The message lists up to 20 violations.
    """
    contract = draft.contract
    for table in contract.tables:
        if not any((draft.files / table).glob("*.parquet")):
            # An empty table is a file as well, so readers need no special case.
            draft.writer(table).close()
    problems = bundles.problems(contract, draft.files)
    rows = {}
    for table in contract.tables:
        rows[table], violations = check.table(contract, table, draft.files)
        problems += violations
    if not problems:
        problems = _conservation_problems(draft, inputs)
    if problems:
        what = f"{draft.artifact_type} (contract {contract.version})"
        raise refusal(what, problems, f"{CORRECT} (see {draft.files})")
    entries = []
    for name in listing(draft.files):
        path = draft.files / name
        flush(path)
        entries.append(FileEntry(path=name, bytes=path.stat().st_size, sha256=sha256(path)))
    return entries, rows


def _conservation_problems(draft: Draft, inputs: Mapping[str, Artifact]) -> list[str]:
    """Compare the primary keys of the input rows with those of the output rows.

    Keys are compared as 64-bit hashes, which takes 8 bytes a row.
    """
    rule = draft.contract.conservation
    if rule is None:
        return []
    artifact_type, table = rule.source.split(".")
    source = None
    for artifact in inputs.values():
        if artifact.artifact_type == artifact_type:
            source = artifact
            break
    if source is None:
        return [
            f"rows of {artifact_type}.{table} must be conserved, and no {artifact_type} came in"
        ]
    key = str(draft.contract.primary_key(rule.into[0]))
    before = check.keys(batch.column(0) for batch in source.batches(table, [key]))
    parts = {}
    for name in rule.into:
        parts[name] = check.keys(check.column(draft.files, name, key))
    after = np.concatenate(list(parts.values()))
    if np.array_equal(np.sort(before), np.sort(after)):
        return []
    unique = np.unique(after)
    lost = len(np.setdiff1d(before, unique))
    made_up = len(np.setdiff1d(unique, before))
    repeated = len(after) - len(unique)
    counts = " + ".join(f"{len(found):,} {name}" for name, found in parts.items())
    return [
        f"{len(before):,} rows of {artifact_type}.{table} came in, "
        f"{counts} = {len(after):,} went out: "
        f"{lost:,} lost, {made_up:,} made up, {repeated:,} there again"
    ]
