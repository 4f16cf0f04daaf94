"""From an older contract version to the current one, while an artifact is read.

`migrations.py` has the functions, one for each table and major version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from data_contracts.errors import ContractError
from data_contracts.migrations import SplitOff

if TYPE_CHECKING:
    from data_contracts.contract import Contract, Contracts, Version


def reaches(contracts: Contracts, artifact_type: str, old: Version, new: Version) -> bool:
    """Return whether the tables of `artifact_type` can be migrated from version `old` to `new`.

    Each table needs a migration for each major step before which it existed.

    Args:
        contracts: The contracts and migrations.
        artifact_type: The artifact type.
        old: The version that rows were written under.
        new: The version that readers want.
    """
    newest = {contract.version.major: contract for contract in contracts.versions(artifact_type)}
    majors = range(old.major, new.major)
    if not newest.keys() >= set(majors):
        return False
    has_steps = False
    for table in newest[new.major].tables:
        for major in majors:
            if table not in newest[major].tables:
                continue
            has_steps = True
            if (artifact_type, table, major) not in contracts.steps:
                return False
    return has_steps


def stored_as(contracts: Contracts, artifact_type: str, table: str, old: Version) -> str:
    """Return the table of version `old` that `table` of the current version is made from.

    Args:
        contracts: The contracts and migrations.
        artifact_type: The artifact type.
        table: A table of the current version.
        old: The version that rows were written under.
    """
    for major in reversed(range(old.major, contracts.current(artifact_type).version.major)):
        step = contracts.steps.get((artifact_type, table, major))
        if isinstance(step, SplitOff):
            table = step.table
    return table


def upgrade(
    contracts: Contracts, artifact_type: str, table: str, batch: pa.RecordBatch, old: Version
) -> pa.RecordBatch:
    """Migrate rows to the current version of `artifact_type`.

    Args:
        contracts: The contracts and migrations.
        artifact_type: The artifact type.
        table: The table of the current version.
        batch: Rows of the table that `stored_as` names for version `old`.
        old: The version that the rows were written under.

    Raises:
        ContractError: A migration is missing, or does not give the columns that the next version
            needs.
    """
    versions = contracts.versions(artifact_type)
    newest = {contract.version.major: contract for contract in versions}
    for major in range(old.major, versions[-1].version.major):
        began = newest[major + 1].version
        before = stored_as(contracts, artifact_type, table, old)
        after = stored_as(contracts, artifact_type, table, began)
        step = contracts.steps.get((artifact_type, after, major))
        if step is None:
            raise ContractError(
                f"{artifact_type}.{table} {old}",
                f"there is no migration from {major}.x to {major + 1}.x",
                "build the artifact again",
            )
        rows = step.rows if isinstance(step, SplitOff) else step
        batch = rows(_filled(batch, newest[major], before))
        old = began
    return _filled(batch, versions[-1], table)


def _filled(batch: pa.RecordBatch, contract: Contract, table: str) -> pa.RecordBatch:
    """Return `batch` with the columns of `contract`; missing nullable ones become null."""
    wanted = contract.arrow_schema(table).remove_metadata()
    columns, problems = [], []
    for field in wanted:
        if field.name in batch.schema.names and batch.schema.field(field.name).type == field.type:
            columns.append(batch.column(field.name))
        elif field.name not in batch.schema.names and field.nullable:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            problems.append(f"{field.name} is not there as {field.type}")
    if problems:
        raise ContractError(
            f"migration of {contract.artifact_type}.{table} to {contract.version}",
            "; ".join(problems),
            "correct it in data_contracts/migrations.py",
        )
    return pa.RecordBatch.from_arrays(columns, schema=wanted)
