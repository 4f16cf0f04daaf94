"""Writes one shard of a table under the schema of its contract."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.check import TableCheck
from data_contracts.contract import Contract
from data_contracts.errors import ContractError, refusal

ROW_GROUP_BYTES = 32 << 20
_BUFFERED_BYTES = 4 << 20  # of dicts that are gathered before they become Arrow

# What Arrow raises for a value that does not fit its type.
_WRONG_VALUE = (pa.ArrowException, ValueError, TypeError, OverflowError)


class TableWriter:
    """A writer that appends rows to one Parquet file. Use it as a context manager.

    Rows may be dicts (missing keys become null), record batches or tables. They are gathered into
    row groups of about 32 MB. Rows that the schema of the contract cannot hold raise ContractError
    at once; all other rules are checked at publish.
    """

    def __init__(self, contract: Contract, table: str, path: Path):
        self.contract = contract
        self.table = table
        self.path = path
        self.rows = 0
        self.schema = contract.arrow_schema(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            raise self._refused(f"{self._name} is written twice") from None
        self._file = pq.ParquetWriter(
            path, self.schema, compression="zstd", write_page_checksum=True
        )
        self._dicts: list[Mapping[str, Any]] = []
        self._dict_bytes = 0
        self._tables: list[pa.Table] = []
        self._table_bytes = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # The error that is being raised says more than a second one from the footer.
        with suppress(OSError):
            self._file.close()

    def write(self, rows: pa.Table | pa.RecordBatch | Iterable[Mapping[str, Any]]) -> None:
        """Append rows. Raises ContractError for rows that the schema cannot hold."""
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        if isinstance(rows, pa.Table):
            self._flush_dicts()
            self._append(rows)
            return
        for row in rows:
            self._dicts.append(row)
            self._dict_bytes += _size(row)
            if self._dict_bytes >= _BUFFERED_BYTES:
                self._flush_dicts()

    def close(self) -> None:
        """Write what is buffered, and the footer."""
        self._flush_dicts()
        self._write_row_group()
        self._file.close()

    @property
    def _name(self) -> str:
        return f"{self.table}/{self.path.name}"

    def _flush_dicts(self) -> None:
        if not self._dicts:
            return
        rows = self._dicts
        self._dicts = []
        self._dict_bytes = 0
        unknown = set().union(*rows) - set(self.schema.names)
        if unknown:
            shown = ", ".join(sorted(map(repr, unknown)))
            raise self._refused(f"{self._name}: the contract has no columns {shown}")
        try:
            table = pa.Table.from_pylist(rows, self.schema)
        except _WRONG_VALUE as error:
            raise self._refused(*self._wrong_values(rows), otherwise=error) from None
        self._append(table)

    def _append(self, table: pa.Table) -> None:
        problems = self._schema_problems(table.schema)
        if problems:
            raise self._refused(*problems)
        table = table.select(self.schema.names)
        try:
            table = table.cast(self.schema)
        except _WRONG_VALUE as error:  # null where none is allowed
            raise self._refused(*self._violations(table), otherwise=error) from None
        self._tables.append(table)
        self.rows += table.num_rows
        self._table_bytes += table.nbytes
        if self._table_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def _write_row_group(self) -> None:
        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        # Groups of equal size: no batch crosses one, so a small rest would be a small batch.
        groups = max(1, round(self._table_bytes / ROW_GROUP_BYTES))
        self._tables = []
        self._table_bytes = 0
        self._file.write_table(table, row_group_size=max(1, -(-table.num_rows // groups)))

    def _schema_problems(self, schema: pa.Schema) -> list[str]:
        """Return the columns of the contract that are missing or have another type."""
        problems = []
        for field in self.schema:
            if field.name not in schema.names:
                found = "missing"
            elif not _is_same(schema.field(field.name).type, field.type):
                found = str(schema.field(field.name).type)
            else:
                continue
            problems.append(f"{self._name}: column {field.name!r} is {found}, wanted {field.type}")
        return problems

    def _violations(self, table: pa.Table) -> list[str]:
        """Return the rules that the values of `table` break."""
        check = TableCheck(self.contract, self.table)
        row = self.rows
        for batch in table.to_batches():
            check.batch(batch, self._name, row)
            row += batch.num_rows
        return [str(violation) for violation in check.violations()]

    def _wrong_values(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the first row that Arrow refuses, for each column in which it refuses one."""
        problems = []
        for field in self.schema:
            for number, row in enumerate(rows):
                try:
                    pa.array([row.get(field.name)], field.type)
                except _WRONG_VALUE as error:
                    problems.append(
                        f"{self._name} row {self.rows + number}: "
                        f"{self.table}.{field.name} is not {field.type}: {error}"
                    )
                    break
        return problems

    def _refused(self, *problems: str, otherwise: Exception | None = None) -> ContractError:
        """Return the error that lists `problems`, or quotes `otherwise` if there are none."""
        what = f"{self.contract.artifact_type} (contract {self.contract.version})"
        return refusal(what, list(problems) or [f"{self._name}: {otherwise}"])


def _size(value: Any) -> int:
    """Estimate the bytes that a value takes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return 64 + sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], int | float):
            return 8 * len(value)
        return 8 + sum(map(_size, value))
    return 8


def _is_same(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether two types are equal, apart from whether something inside may be null.

    The check of the values finds nulls.
    """
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _is_same(one.value_type, other.value_type)
    if not (pa.types.is_struct(one) and pa.types.is_struct(other)):
        return one.equals(other)
    if one.num_fields != other.num_fields:
        return False
    for field, other_field in zip(one, other, strict=True):
        if field.name != other_field.name or not _is_same(field.type, other_field.type):
            return False
    return True
