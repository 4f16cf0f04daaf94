"""From an older contract version to a newer one, on the way out of the file.

A minor version needs no entry here: columns that it added are filled with null, so they must be nullable
(`compatibility.py` refuses anything else). A major version of a table needs a function, registered under
(artifact_type, table, old major); it is tested from a stored artifact of the old version. A table that a major version takes out of
another one is registered as `SplitOff`. Bundles of files are not migrated: a new major version of one is built again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.errors import ContractError

if TYPE_CHECKING:
    from data_contracts.contract import Contract, Contracts, Version

Migration = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class SplitOff:
    """A table that a major version began: its rows are made of those of `table`, which the version before had."""

    table: str
    rows: Migration


def _fetches_of_documents(batch: pa.RecordBatch) -> pa.RecordBatch:
    """raw_documents 1.x said of each document when and how it was had; nothing of local files."""
    columns = ["id", "fetched_at", "etag", "last_modified", "warc_file", "warc_offset"]
    return batch.select(columns).filter(pc.is_valid(batch["fetched_at"]))


def _unchanged(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


MAJOR_STEPS: dict[tuple[str, str, int], Migration | SplitOff] = {
    ("raw_documents", "documents", 1): _unchanged,  # the columns that went are left out on the way
    ("raw_documents", "failures", 1): _unchanged,
    ("raw_documents", "fetches", 1): SplitOff("documents", _fetches_of_documents),
}


def reaches(contracts: Contracts, artifact_type: str, old: Version, new: Version) -> bool:
    """True if each table of `artifact_type` has a migration for each major step from `old` to `new` before which it was there already."""
    newest = {contract.version.major: contract for contract in contracts.versions(artifact_type)}
    majors = range(old.major, new.major)
    if not newest.keys() >= set(majors):
        return False
    steps = [
        (artifact_type, table, major)
        for table in newest[new.major].tables
        for major in majors
        if table in newest[major].tables
    ]
    return bool(steps) and all(step in contracts.steps for step in steps)


def stored_as(contracts: Contracts, artifact_type: str, table: str, old: Version) -> str:
    """The table of version `old` whose rows make those of `table` as the current version of `artifact_type` has it."""
    for major in reversed(range(old.major, contracts.current(artifact_type).version.major)):
        step = contracts.steps.get((artifact_type, table, major))
        if isinstance(step, SplitOff):
            table = step.table
    return table


def upgrade(
    contracts: Contracts, artifact_type: str, table: str, batch: pa.RecordBatch, old: Version
) -> pa.RecordBatch:
    """`batch`, of the table that `stored_as` names under version `old`, as the current version of `artifact_type` has `table`.

    Raises ContractError if a migration is missing or does not give the columns that the next version wants.
    """
    versions = contracts.versions(artifact_type)
    newest = {contract.version.major: contract for contract in versions}
    for major in range(old.major, versions[-1].version.major):
        began = newest[major + 1].version
        before, after = (
            stored_as(contracts, artifact_type, table, old),
            stored_as(contracts, artifact_type, table, began),
        )
        step = contracts.steps.get((artifact_type, after, major))
        if step is None:
            raise ContractError(
                f"{artifact_type}.{table} {old}",
                f"there is no migration from {major}.x to {major + 1}.x",
                "build the artifact again",
            )
        rows = step.rows if isinstance(step, SplitOff) else step
        batch, old = rows(_filled(batch, newest[major], before)), began
    return _filled(batch, versions[-1], table)


def _filled(batch: pa.RecordBatch, contract: Contract, table: str) -> pa.RecordBatch:
    """`batch` with the columns of `contract`, in its order; nullable ones that are not there become null."""
    wanted = contract.arrow_schema(table).remove_metadata()
    columns, told = [], []
    for field in wanted:
        if field.name in batch.schema.names and batch.schema.field(field.name).type == field.type:
            columns.append(batch.column(field.name))
        elif field.name not in batch.schema.names and field.nullable:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            told.append(f"{field.name} is not there as {field.type}")
    if told:
        raise ContractError(
            f"migration of {contract.artifact_type}.{table} to {contract.version}",
            "; ".join(told),
            "correct it in data_contracts/migrations.py",
        )
    return pa.RecordBatch.from_arrays(columns, schema=wanted)
