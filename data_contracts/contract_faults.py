"""What is wrong with a contract: rules that nothing checks, unknown types, unsafe names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from open_data_contract_standard.model import SchemaObject, SchemaProperty

if TYPE_CHECKING:
    from data_contracts.contract import Conservation, Contract

# physicalType → logicalType, Arrow type
SCALARS: dict[str, tuple[str, pa.DataType]] = {
    "string": ("string", pa.string()),
    "large_string": ("string", pa.large_string()),
    "large_binary": ("string", pa.large_binary()),
    "bool": ("boolean", pa.bool_()),
    "int16": ("integer", pa.int16()),
    "int32": ("integer", pa.int32()),
    "int64": ("integer", pa.int64()),
    "float": ("number", pa.float32()),
    "double": ("number", pa.float64()),
    "timestamp[ms, tz=UTC]": ("timestamp", pa.timestamp("ms", tz="UTC")),
}
# The rules that value_rules.py checks, by logicalType. A contract may state no other: nothing would
# check it.
_OPTIONS = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "array": {"minItems", "maxItems"},
}
# The rules of files that a contract may name. `bundles.py` has a function for each, and a test
# compares the two: contracts are read without what reads tensors and tokenizers.
RULES = (
    "tokenizer_is_byte_level_bpe",
    "tokenizer_has_special_tokens",
    "tokens_below_vocabulary",
    "checkpoint_tensors_follow_config",
    "checkpoint_vocabulary_matches_tokenizer",
    "gguf_header_is_readable",
)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def faults(contract: Contract, objects: Iterable[SchemaObject]) -> Iterator[str]:
    """Return everything that is wrong with a contract, one phrase for each fault.

    Args:
        contract: The contract.
        objects: The schema objects that it was read from.
    """
    yield from _contract_faults(contract)
    for obj in objects:
        yield from _object_faults(obj)


def _object_faults(obj: SchemaObject) -> Iterator[str]:
    if obj.physicalType not in ("table", "files"):
        yield f"{obj.name}: physicalType is neither table nor files"
    if obj.quality:
        yield f"{obj.name}: quality rules are not checked"


def _contract_faults(contract: Contract) -> Iterator[str]:
    for name in contract.rules:
        if name not in RULES:
            yield f"rule {name!r} is not known, choose from: {', '.join(RULES)}"
    for table in contract.tables:
        yield from _table_faults(contract, table)
    if contract.conservation:
        yield from _conservation_faults(contract, contract.conservation)


def _table_faults(contract: Contract, table: str) -> Iterator[str]:
    columns = contract.columns(table)
    if not _NAME.fullmatch(table):
        yield f"table {table!r} is not a plain name"
    if contract.tables[table].physicalName != f"{table}/*.parquet":
        yield f"table {table}: physicalName must be {table}/*.parquet"
    if not columns:
        yield f"table {table} has no columns"
    if len({prop.name for prop in columns}) != len(columns):
        yield f"table {table} has a column twice"
    if sum(bool(prop.primaryKey) for prop in columns) > 1:
        yield f"table {table}: a primary key of several columns is not checked"
    for prop in columns:
        yield from _column_faults(f"{table}.{prop.name}", prop)


def _conservation_faults(contract: Contract, conservation: Conservation) -> Iterator[str]:
    lost = set(conservation.into) - contract.tables.keys()
    if lost:
        yield f"conservation: no tables {sorted(lost)}"
        return
    keys = {contract.primary_key(table) for table in conservation.into}
    if len(keys) > 1 or None in keys:
        tables = " and ".join(conservation.into)
        yield f"conservation: {tables} need a primary key of one name, to identify rows"


def _column_faults(where: str, prop: SchemaProperty) -> Iterator[str]:
    if not _NAME.fullmatch(str(prop.name)):
        yield f"{where}: not a plain name"
    if prop.quality:
        yield f"{where}: quality rules are not checked"
    unknown = set(prop.logicalTypeOptions or {}) - _OPTIONS.get(str(prop.logicalType), set())
    if unknown:
        yield f"{where}: {', '.join(sorted(unknown))} is not checked on {prop.logicalType}"
    if prop.logicalType == "array" and prop.items is not None:
        yield from _column_faults(where + "[]", prop.items)
    elif prop.logicalType == "object" and prop.properties:
        for child in prop.properties:
            yield from _column_faults(f"{where}.{child.name}", child)
    elif str(prop.physicalType) not in SCALARS:
        yield (
            f"{where}: physicalType {prop.physicalType!r} is not known, "
            f"use one of: {', '.join(SCALARS)}"
        )
    else:
        yield from _scalar_faults(where, prop)
        return
    if prop.unique or prop.primaryKey or prop.enum:
        yield f"{where}: unique and enum are checked on plain columns only"


def _scalar_faults(where: str, prop: SchemaProperty) -> Iterator[str]:
    logical, arrow = SCALARS[str(prop.physicalType)]
    if prop.logicalType != logical:
        yield f"{where}: {prop.physicalType} is logicalType {logical}, not {prop.logicalType}"
    if (prop.unique or prop.primaryKey) and not prop.required:
        yield f"{where}: a unique column must be required"
    try:
        pa.array([choice.value for choice in prop.enum or []], arrow)
        pc.match_substring_regex(pa.array([""]), (prop.logicalTypeOptions or {}).get("pattern", ""))
    except (pa.ArrowException, TypeError) as error:
        yield f"{where}: {error}"
