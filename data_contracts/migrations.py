"""From an older contract version to a newer one, on the way out of the file.

A minor version needs no entry here: columns that it added are filled with null, so they must be nullable
(`compatibility.py` refuses anything else). A major version of a table needs a function, registered under
(noun, table, old major); it is tested from a stored artifact of the old version. Bundles of files are not migrated:
a new major version of one is built again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

from data_contracts.errors import ContractError

if TYPE_CHECKING:
    from data_contracts.contract import Contract, Contracts, Version

Migration = Callable[[pa.RecordBatch], pa.RecordBatch]

MAJOR_STEPS: dict[tuple[str, str, int], Migration] = {}


def reaches(contracts: Contracts, noun: str, old: Version, new: Version) -> bool:
    """True if each table of `noun` has a migration for each major step from `old` to `new` before which it was there already."""
    newest = {contract.version.major: contract for contract in contracts.versions(noun)}
    majors = range(old.major, new.major)
    if not newest.keys() >= set(majors):
        return False
    steps = [(noun, table, major) for table in newest[new.major].tables for major in majors if table in newest[major].tables]
    return bool(steps) and all(step in contracts.steps for step in steps)


def upgrade(contracts: Contracts, noun: str, table: str, batch: pa.RecordBatch, old: Version) -> pa.RecordBatch:
    """`batch`, written under version `old`, as the current version of `noun` has it.

    Raises ContractError if a migration is missing or does not give the columns that the next version wants.
    """
    versions = contracts.versions(noun)
    for major in range(old.major, versions[-1].version.major):
        step = contracts.steps.get((noun, table, major))
        if step is None:
            raise ContractError(
                f"{noun}.{table} {old}", f"there is no migration from {major}.x to {major + 1}.x", "build the artifact again"
            )
        newest = [contract for contract in versions if contract.version.major == major][-1]
        batch = step(_filled(batch, newest, table))
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
            f"migration of {contract.noun}.{table} to {contract.version}", "; ".join(told), "correct it in data_contracts/migrations.py"
        )
    return pa.RecordBatch.from_arrays(columns, schema=wanted)
