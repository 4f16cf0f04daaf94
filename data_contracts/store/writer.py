"""Writes one shard of a table, under the schema of its contract."""

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
from data_contracts.errors import ContractError
from data_contracts.files import refusal

ROW_GROUP_BYTES = 32 << 20
_ROWS_BYTES = 4 << 20  # dicts gathered before they become Arrow
_WRONG_VALUE = (
    pa.ArrowException,
    ValueError,
    TypeError,
    OverflowError,
)  # what Arrow raises for a value that does not fit


class TableWriter:
    """Appends rows to one Parquet file. Use as a context manager.

    Rows may be dicts (missing keys become null), record batches or tables; they are gathered into row groups of about 32 MB.
    Raises ContractError, at once, for rows that the contract's schema cannot hold; all other rules are checked at publish.
    """

    def __init__(self, contract: Contract, table: str, path: Path):
        self.contract, self.table, self.path, self.rows = contract, table, path, 0
        self.schema = contract.arrow_schema(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            raise self._refused(f"{self._where} is written twice") from None
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
        else:
            with suppress(
                OSError
            ):  # the error under way says more than a second one from the footer
                self._file.close()

    def write(self, rows: pa.Table | pa.RecordBatch | Iterable[Mapping[str, Any]]) -> None:
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        if isinstance(rows, pa.Table):
            self._gather_dicts()
            self._put(rows)
            return
        for row in rows:
            self._dicts.append(row)
            self._dict_bytes += _size(row)
            if self._dict_bytes >= _ROWS_BYTES:
                self._gather_dicts()

    def close(self) -> None:
        self._gather_dicts()
        self._write_row_group()
        self._file.close()

    @property
    def _where(self) -> str:
        return f"{self.table}/{self.path.name}"

    def _gather_dicts(self) -> None:
        if not self._dicts:
            return
        rows, self._dicts, self._dict_bytes = self._dicts, [], 0
        if unknown := {key for row in rows for key in row} - set(self.schema.names):
            raise self._refused(
                f"{self._where}: the contract has no columns {', '.join(sorted(map(repr, unknown)))}"
            )
        try:
            table = pa.Table.from_pylist(rows, self.schema)
        except _WRONG_VALUE as error:
            raise self._refused(*self._wrong_values(rows), otherwise=error) from None
        self._put(table)

    def _put(self, table: pa.Table) -> None:
        names = table.schema.names
        if told := [
            f"{self._where}: column {field.name!r} is {'missing' if field.name not in names else table.schema.field(field.name).type}"
            f", wanted {field.type}"
            for field in self.schema
            if field.name not in names or not _same(table.schema.field(field.name).type, field.type)
        ]:
            raise self._refused(*told)
        table = table.select(self.schema.names)
        try:
            table = table.cast(self.schema)
        except _WRONG_VALUE as error:  # null where none is allowed
            check, row = TableCheck(self.contract, self.table), self.rows
            for batch in table.to_batches():
                check.batch(batch, self._where, row)
                row += batch.num_rows
            raise self._refused(*map(str, check.violations()), otherwise=error) from None
        self._tables.append(table)
        self.rows += table.num_rows
        self._table_bytes += table.nbytes
        if self._table_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def _write_row_group(self) -> None:
        if not self._tables:
            return
        table, total = pa.concat_tables(self._tables), self._table_bytes
        self._tables, self._table_bytes = [], 0
        groups = max(
            1, round(total / ROW_GROUP_BYTES)
        )  # of equal size: no batch crosses one, so that a small rest would be a small batch
        self._file.write_table(table, row_group_size=max(1, -(-table.num_rows // groups)))

    def _wrong_values(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Of each column that Arrow refuses, the first row that it refuses."""
        told = []
        for field in self.schema:
            for number, row in enumerate(rows):
                try:
                    pa.array([row.get(field.name)], field.type)
                except _WRONG_VALUE as error:
                    told.append(
                        f"{self._where} row {self.rows + number}: {self.table}.{field.name} is not {field.type}: {error}"
                    )
                    break
        return told

    def _refused(self, *told: str, otherwise: Exception | None = None) -> ContractError:
        return refusal(
            f"{self.contract.artifact_type} (contract {self.contract.version})",
            list(told) or [f"{self._where}: {otherwise}"],
        )


def _size(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return 64 + sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return (
            8 * len(value)
            if value and isinstance(value[0], int | float)
            else 8 + sum(map(_size, value))
        )
    return 8


def _same(one: pa.DataType, other: pa.DataType) -> bool:
    """Equal but for whether something inside may be null: what is null is found by the values."""
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _same(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return [f.name for f in one] == [f.name for f in other] and all(
            _same(a.type, b.type) for a, b in zip(one, other, strict=True)
        )
    return one.equals(other)
