"""Does a table keep its contract? The checks are vectorised over record batches.

A million rows a second is the order of magnitude. `differences` compares schemas and lists every
difference. `TableCheck` reads values batch by batch and names file and row. `table` does both for
the files of a folder.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from open_data_contract_standard.model import SchemaProperty

from data_contracts.contract import Contract
from data_contracts.files import batches
from data_contracts.value_rules import broken_rules

BATCH_ROWS = 16384
SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class Violation:
    """One broken rule of one column, at the first row that breaks it.

    Attributes:
        table: The table.
        column: The column, with the path into it, e.g. `messages[].role`.
        rule: The rule, as the contract calls it.
        detail: How the value breaks it.
        file: The file of the first row.
        row: The first row, from 0, within `file`.
        rows: How many rows of the table break the rule.
    """

    table: str
    column: str
    rule: str
    detail: str
    file: str
    row: int
    rows: int

    def __str__(self) -> str:
        more = f" (and {self.rows - 1:,} more rows)" if self.rows > 1 else ""
        column = f"{self.table}.{self.column}"
        return f"{self.file} row {self.row}: {column} breaks {self.rule}: {self.detail}{more}"


def table(
    contract: Contract, name: str, folder: Path, is_newer: bool = False
) -> tuple[int, list[str]]:
    """Check the files of a table, `folder`/`name`/*.parquet.

    Args:
        contract: The contract.
        name: The table.
        folder: The folder of the artifact.
        is_newer: Whether a newer minor version wrote them. It may have more columns and wider
            bounds, so only the schema is compared.

    Returns:
        The number of rows, and everything in which the files break the contract.
    """
    check = TableCheck(contract, name)
    rows = 0
    problems = []
    for path in sorted((folder / name).glob("*.parquet")):
        file_name = f"{name}/{path.name}"
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                wrong = _schema_differences(contract, name, file.schema_arrow, is_newer)
                problems += [f"{file_name}: {difference}" for difference in wrong]
                if wrong:
                    continue
                if is_newer:
                    rows += file.metadata.num_rows
                else:
                    rows += _check_values(check, file, file_name)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # a fault of the disk, not of the file
                raise
            problems.append(f"{file_name}: cannot be read: {error}")
    problems += [str(violation) for violation in check.violations()]
    return rows, problems


def _check_values(check: TableCheck, file: pq.ParquetFile, name: str) -> int:
    """Check every row of a Parquet file; `name` is for messages. Returns the number of rows."""
    columns = file.schema_arrow.names
    rows = 0
    for batch in batches(file, BATCH_ROWS, columns):
        check.batch(batch.select(columns), name, rows)
        rows += batch.num_rows
    return rows


def keys(columns: Iterable[pa.Array]) -> np.ndarray:
    """Return a 64-bit key of every value, for comparison.

    Among n values, two different ones have the same key with a probability of n²/2⁶⁵.
    """
    return np.concatenate([np.empty(0, np.uint64), *map(_keys, columns)])


def column(folder: Path, table: str, name: str) -> Iterator[pa.Array]:
    """Yield one column of the files in `folder`/`table`, batch by batch.

    Args:
        folder: The folder of the artifact.
        table: The table.
        name: The column.
    """
    for path in sorted((folder / table).glob("*.parquet")):
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in batches(file, BATCH_ROWS, [name]):
                yield batch.column(0)


def _schema_differences(
    contract: Contract, table: str, found: pa.Schema, is_newer: bool
) -> list[str]:
    """Return `differences`, without columns that only a newer minor version has."""
    if is_newer:
        known = contract.arrow_schema(table).names
        found = pa.schema([field for field in found if field.name in known])
    return differences(contract, table, found)


def differences(contract: Contract, table: str, found: pa.Schema) -> list[str]:
    """Return every way in which `found` differs from the schema of the contract.

    Args:
        contract: The contract.
        table: The table.
        found: The schema of a file.
    """
    wanted = contract.arrow_schema(table)
    extra = [name for name in found.names if name not in wanted.names]
    problems = []
    for field in wanted:
        count = found.names.count(field.name)
        if count == 0:
            near = difflib.get_close_matches(field.name, extra, n=1, cutoff=0.6)
            hint = f"; found {near[0]!r}, which is not in the contract" if near else ""
            problems.append(f"column {field.name!r} is missing{hint}")
        elif count > 1:
            problems.append(f"column {field.name!r} is there twice")
        elif not found.field(field.name).type.equals(field.type):
            kind = found.field(field.name).type
            problems.append(f"column {field.name!r} is {kind}, the contract says {field.type}")
    problems += [f"column {name!r} is not in the contract" for name in extra]
    if not problems and found.names != wanted.names:
        problems.append(
            f"columns are in the order {', '.join(found.names)}, "
            f"the contract says {', '.join(wanted.names)}"
        )
    return problems


class TableCheck:
    """The check of the values of one table, batch after batch.

    It remembers 8 bytes per row of each unique column, to find duplicates.
    """

    def __init__(self, contract: Contract, table: str):
        self.table = table
        self._properties = contract.columns(table)
        self._found: dict[tuple[str, str], Violation] = {}
        self._keys: dict[str, list[np.ndarray]] = {}  # of unique columns, batch by batch
        for prop in self._properties:
            if prop.unique or prop.primaryKey:
                self._keys[str(prop.name)] = []
        # Of each batch: rows before it in the table, its file, and its first row there.
        self._batches: list[tuple[int, str, int]] = []
        self._rows = 0

    def batch(self, batch: pa.RecordBatch, file: str, first_row: int = 0) -> None:
        """Check a batch that has the schema of the contract.

        Args:
            batch: The rows.
            file: The file that they come from, for messages.
            first_row: Where in `file` the batch begins.

        Raises:
            pyarrow.ArrowInvalid: The memory of the batch is not what its schema says (text that
                is not UTF-8, say).
        """
        batch.validate(full=True)
        for prop in self._properties:
            name = str(prop.name)
            for values in _nested(_Values(name, prop, batch.column(name))):
                for rule, detail, mask in broken_rules(values.prop, values.array):
                    if pc.any(mask).as_py():
                        self._note(values, rule, detail, mask, file, first_row)
            if name in self._keys:
                self._keys[name].append(_keys(batch.column(name), self._rows))
        self._batches.append((self._rows, file, first_row))
        self._rows += batch.num_rows

    def violations(self) -> list[Violation]:
        """Return everything found, by column and rule. Call it once, after the last batch."""
        return [*self._found.values(), *self._duplicates()]

    def _note(
        self, values: _Values, rule: str, detail: str, mask: pa.Array, file: str, first_row: int
    ) -> None:
        """Remember a broken rule, and count the rows that break it."""
        is_broken = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
        positions = np.flatnonzero(is_broken)
        rows = np.unique(values.rows(positions))
        before = self._found.get((values.name, rule))
        if before:
            self._found[values.name, rule] = replace(before, rows=before.rows + len(rows))
            return
        value = values.array[int(positions[0])].as_py()
        self._found[values.name, rule] = Violation(
            table=self.table,
            column=values.name,
            rule=rule,
            detail=f"{_short(value)} {detail}",
            file=file,
            row=first_row + int(rows[0]),
            rows=len(rows),
        )

    def _duplicates(self) -> Iterator[Violation]:
        for name, parts in self._keys.items():
            keys = np.concatenate(parts) if parts else np.empty(0, np.uint64)
            order = np.argsort(keys, kind="stable")
            repeats = np.flatnonzero(keys[order][1:] == keys[order][:-1])
            if not len(repeats):
                continue
            first = repeats[np.argmin(order[1:][repeats])]
            file, row = self._locate(int(order[first + 1]))
            earlier_file, earlier_row = self._locate(int(order[first]))
            detail = f"the same key is in {earlier_file} row {earlier_row}"
            yield Violation(self.table, name, "unique", detail, file, row, len(repeats))

    def _locate(self, row: int) -> tuple[str, int]:
        """Return the file of a row of the table, and the row within that file."""
        number = bisect_right(self._batches, row, key=lambda batch: batch[0]) - 1
        rows_before, file, first_row = self._batches[number]
        return file, first_row + row - rows_before


@dataclass(frozen=True)
class _Values:
    """An array somewhere inside a column.

    Attributes:
        name: The column, with the path into it.
        prop: What the contract says of the values.
        array: The values.
        rows: From positions in `array` to rows of the batch.
    """

    name: str
    prop: SchemaProperty
    array: pa.Array
    rows: Callable[[np.ndarray], np.ndarray] = lambda positions: positions


def _nested(values: _Values) -> Iterator[_Values]:
    """Yield `values`, and the items of lists and fields of structs inside."""
    yield values
    prop, array = values.prop, values.array
    if not (pa.types.is_list(array.type) or pa.types.is_struct(array.type)):
        return
    valid = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    array = array.drop_null()
    if pa.types.is_struct(array.type):
        for child in prop.properties or []:
            field = _Values(
                f"{values.name}.{child.name}",
                child,
                pc.struct_field(array, str(child.name)),
                lambda positions: values.rows(valid[positions]),
            )
            yield from _nested(field)
    elif prop.items is not None:
        ends = np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        items = _Values(
            f"{values.name}[]",
            prop.items,
            array.flatten(),
            lambda positions: values.rows(valid[np.searchsorted(ends, positions, "right")]),
        )
        yield from _nested(items)


def _keys(column: pa.Array, rows_before: int = 0) -> np.ndarray:
    """Return 64-bit keys of the values of a column.

    Each null gets a different key: it breaks `required`, and is not a duplicate.
    """
    if pa.types.is_integer(column.type) and not column.null_count:
        return column.to_numpy(zero_copy_only=False).astype(np.uint64)
    data = column
    if not pa.types.is_large_binary(column.type):
        data = column.cast(pa.large_string()).cast(pa.large_binary())
    values = data.to_numpy(zero_copy_only=False)
    if column.null_count:
        for row in np.flatnonzero(column.is_null()).tolist():
            values[row] = b"null %d" % (rows_before + row)
    return np.fromiter(map(xxhash.xxh3_64_intdigest, values), np.uint64, len(column))


def _short(value: object) -> str:
    text = repr(value) if value is not None else "null"
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
