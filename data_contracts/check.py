"""Does a table keep its contract? Vectorised over record batches: a million rows a second is the order.

`differences` compares schemas and tells everything at once; `TableCheck` reads values batch by batch and names file and row;
`table` does both for the files of a folder.
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

BATCH_ROWS = 16384
SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class Violation:
    """One broken rule of one column, at the first row that breaks it.

    column: with the way into it, e.g. `messages[].role`. row: from 0, within `file`. rows: all rows of the table that break it.
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
        return f"{self.file} row {self.row}: {self.table}.{self.column} breaks {self.rule}: {self.detail}{more}"


def table(
    contract: Contract, name: str, folder: Path, newer: bool = False
) -> tuple[int, list[str]]:
    """Rows of the table in `folder`/`name`/*.parquet, and everything in which its files break the contract.

    newer: a newer minor version wrote them. It may have columns more and wider bounds, so that only the schema is compared.
    """
    check, rows, told = TableCheck(contract, name), 0, []
    for path in sorted((folder / name).glob("*.parquet")):
        where = f"{name}/{path.name}"
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                found = file.schema_arrow
                if newer:
                    found = pa.schema(
                        [
                            field
                            for field in found
                            if field.name in contract.arrow_schema(name).names
                        ]
                    )
                if different := differences(contract, name, found):
                    told += [f"{where}: {line}" for line in different]
                    continue
                if newer:
                    rows += file.metadata.num_rows
                    continue
                first = 0
                for batch in batches(file, BATCH_ROWS, found.names):
                    check.batch(batch.select(found.names), where, first)
                    first += batch.num_rows
                rows += first
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # of the disk, not of what is on it
                raise
            told.append(f"{where}: cannot be read: {error}")
    return rows, told + [str(violation) for violation in check.violations()]


def keys(columns: Iterable[pa.Array]) -> np.ndarray:
    """A 64-bit key of every value, by which values are compared: two different ones of n have the same with a chance of n²/2⁶⁵."""
    return np.concatenate([np.empty(0, np.uint64), *map(_keys, columns)])


def column(folder: Path, table: str, name: str) -> Iterator[pa.Array]:
    """One column of the files in `folder`/`table`, batch by batch."""
    for path in sorted((folder / table).glob("*.parquet")):
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from (batch.column(0) for batch in batches(file, BATCH_ROWS, [name]))


def differences(contract: Contract, table: str, found: pa.Schema) -> list[str]:
    """Every way in which `found` is not the schema of the contract; empty if it is."""
    wanted = contract.arrow_schema(table)
    extra = [name for name in found.names if name not in wanted.names]
    told = []
    for field in wanted:
        if field.name not in found.names:
            near = difflib.get_close_matches(field.name, extra, n=1, cutoff=0.6)
            hint = f"; found {near[0]!r}, which is not in the contract" if near else ""
            told.append(f"column {field.name!r} is missing{hint}")
        elif found.names.count(field.name) > 1:
            told.append(f"column {field.name!r} is there twice")
        elif not found.field(field.name).type.equals(field.type):
            told.append(
                f"column {field.name!r} is {found.field(field.name).type}, the contract says {field.type}"
            )
    told += [f"column {name!r} is not in the contract" for name in extra]
    if not told and found.names != wanted.names:
        told.append(
            f"columns are in the order {', '.join(found.names)}, the contract says {', '.join(wanted.names)}"
        )
    return told


class TableCheck:
    """Checks the values of one table, batch after batch; remembers 8 bytes a row of each unique column to find duplicates."""

    def __init__(self, contract: Contract, table: str):
        self.table = table
        self._properties = contract.columns(table)
        self._found: dict[tuple[str, str], Violation] = {}
        self._keys: dict[str, list[np.ndarray]] = {
            str(p.name): [] for p in self._properties if p.unique or p.primaryKey
        }
        self._places: list[
            tuple[int, str, int]
        ] = []  # of each batch: rows before it in the table, its file, its first row there
        self._rows = 0

    def batch(self, batch: pa.RecordBatch, file: str, first_row: int = 0) -> None:
        """Check `batch`, which has the schema of the contract and begins at row `first_row` of `file`.

        Raises pyarrow.ArrowInvalid if the memory of the batch is not what its schema says (e.g. text that is not UTF-8).
        """
        batch.validate(full=True)
        for prop in self._properties:
            name = str(prop.name)
            for values in _within(_Values(name, prop, batch.column(name))):
                for rule, detail, mask in _masks(values.prop, values.array):
                    if pc.any(mask).as_py():
                        self._note(values, rule, detail, mask, file, first_row)
            if name in self._keys:
                self._keys[name].append(_keys(batch.column(name), self._rows))
        self._places.append((self._rows, file, first_row))
        self._rows += batch.num_rows

    def violations(self) -> list[Violation]:
        """Everything found, one entry per column and rule. Call once, after the last batch."""
        return [*self._found.values(), *self._duplicates()]

    def _note(
        self, values: _Values, rule: str, detail: str, mask: pa.Array, file: str, first_row: int
    ) -> None:
        at = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
        rows = np.unique(values.rows(at))
        if before := self._found.get((values.name, rule)):
            self._found[values.name, rule] = replace(before, rows=before.rows + len(rows))
            return
        told = f"{_short(values.array[int(at[0])].as_py())} {detail}"
        self._found[values.name, rule] = Violation(
            self.table, values.name, rule, told, file, first_row + int(rows[0]), len(rows)
        )

    def _duplicates(self) -> Iterator[Violation]:
        for name, parts in self._keys.items():
            keys = np.concatenate(parts) if parts else np.empty(0, np.uint64)
            order = np.argsort(keys, kind="stable")
            same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
            if len(same):
                first = same[np.argmin(order[1:][same])]
                (file, row), (earlier_file, earlier_row) = (
                    self._place(int(order[first + 1])),
                    self._place(int(order[first])),
                )
                detail = f"the same key is in {earlier_file} row {earlier_row}"
                yield Violation(self.table, name, "unique", detail, file, row, len(same))

    def _place(self, row: int) -> tuple[str, int]:
        before, file, first_row = self._places[
            bisect_right(self._places, row, key=lambda place: place[0]) - 1
        ]
        return file, first_row + row - before


@dataclass(frozen=True)
class _Values:
    """An array somewhere inside a column. rows: from positions in the array to rows of the batch."""

    name: str
    prop: SchemaProperty
    array: pa.Array
    rows: Callable[[np.ndarray], np.ndarray] = lambda positions: positions


def _within(values: _Values) -> Iterator[_Values]:
    """`values`, and all that lies inside: items of lists, fields of structs. What is inside null is nothing."""
    yield values
    prop, array = values.prop, values.array
    if not (pa.types.is_list(array.type) or pa.types.is_struct(array.type)):
        return
    valid = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    array = array.drop_null()
    if pa.types.is_struct(array.type):
        for child in prop.properties or []:
            field = pc.struct_field(array, str(child.name))
            yield from _within(
                _Values(
                    f"{values.name}.{child.name}", child, field, lambda at: values.rows(valid[at])
                )
            )
    elif prop.items is not None:
        ends = np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        inside = _Values(
            f"{values.name}[]",
            prop.items,
            array.flatten(),
            lambda at: values.rows(valid[np.searchsorted(ends, at, "right")]),
        )
        yield from _within(inside)


def _masks(prop: SchemaProperty, array: pa.Array) -> Iterator[tuple[str, str, pa.Array]]:
    """(rule, what to say of a value that breaks it, mask of values that do); where the mask is null the rule holds."""
    options, kind = prop.logicalTypeOptions or {}, array.type
    if prop.required and array.null_count:
        yield "required", "where a value is required", array.is_null()
    if pa.types.is_floating(kind):
        yield "finite", "is not a finite number", pc.invert(pc.is_finite(array))
    measured, unit = array, ""
    if pa.types.is_list(kind):
        measured, unit = pc.list_value_length(array), "Items"
    elif "minLength" in options or "maxLength" in options:
        # characters; where only "not empty" is asked, bytes tell the same without looking at the text
        in_bytes = pa.types.is_large_binary(kind) or (
            "maxLength" not in options and options["minLength"] <= 1
        )
        measured, unit = (pc.binary_length if in_bytes else pc.utf8_length)(array), "Length"
    least, most = ("min" + unit, "max" + unit) if unit else ("minimum", "maximum")
    if least in options:
        yield (
            least,
            f"is below {options[least]}" if not unit else f"is shorter than {options[least]}",
            pc.less(measured, options[least]),
        )
    if most in options:
        yield (
            most,
            f"is above {options[most]}" if not unit else f"is longer than {options[most]}",
            pc.greater(measured, options[most]),
        )
    if "pattern" in options:
        yield (
            "pattern",
            f"does not match {options['pattern']}",
            pc.invert(pc.match_substring_regex(array, options["pattern"])),
        )
    if prop.enum:
        allowed = [choice.value for choice in prop.enum]
        chosen = pc.is_in(array, pa.array(allowed, kind))
        yield (
            "enum",
            f"is none of {', '.join(map(str, allowed))}",
            pc.and_(array.is_valid(), pc.invert(chosen)),
        )


def _keys(column: pa.Array, rows_before: int = 0) -> np.ndarray:
    """64-bit keys; a false alarm has a chance of n²/2⁶⁵ in n rows. Nulls get a key of their own: `required` speaks of them."""
    if pa.types.is_integer(column.type) and not column.null_count:
        return column.to_numpy(zero_copy_only=False).astype(np.uint64)
    data = (
        column
        if pa.types.is_large_binary(column.type)
        else column.cast(pa.large_string()).cast(pa.large_binary())
    )
    values = data.to_numpy(zero_copy_only=False)
    if column.null_count:
        values = [
            b"null %d" % (rows_before + row) if value is None else value
            for row, value in enumerate(values)
        ]
    return np.fromiter(map(xxhash.xxh3_64_intdigest, values), np.uint64, len(column))


def _short(value: object) -> str:
    text = repr(value) if value is not None else "null"
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
