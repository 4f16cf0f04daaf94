"""What changed between two versions of a contract, and whether it breaks a reader of the old one.

A change is compatible if artifacts that kept the old contract keep the new one, and code that read
the old one can read the new: one more nullable column, a wider bound, one more choice, one more
optional file. Everything else needs a new major version and a migration. The order of columns does
not matter: readers use names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from open_data_contract_standard.model import SchemaProperty

from data_contracts.contract import SHIPPED, Contract, Contracts, FileRule, load
from data_contracts.errors import ContractError

_BOUNDS = {  # the sign of a change that makes the rule stricter
    "minimum": 1,
    "minLength": 1,
    "minItems": 1,
    "maximum": -1,
    "maxLength": -1,
    "maxItems": -1,
}


@dataclass(frozen=True)
class Change:
    """One difference between two versions.

    Attributes:
        where: The table, column, file or rule.
        what: What changed.
        breaking: Whether it breaks a reader of the old version.
    """

    where: str
    what: str
    breaking: bool


def find(reference: str, contracts: Contracts = SHIPPED) -> Contract:
    """Return a contract by its file, or as `artifact_type` (the newest) or `artifact_type@1.0.0`.

    Args:
        reference: The path of a file, a type, or a type and a version.
        contracts: Where to look for a type.
    """
    if reference.endswith((".yaml", ".yml")):
        return load(Path(reference).resolve())
    artifact_type, at, version = reference.partition("@")
    versions = contracts.versions(artifact_type)
    if not at:
        return versions[-1]
    known = []
    for contract in versions:
        if str(contract.version) == version:
            return contract
        known.append(f"{artifact_type}@{contract.version}")
    raise ContractError(
        f"contract {reference!r}",
        "there is no such version",
        f"choose from: {', '.join(known)}",
    )


def changes(old: Contract, new: Contract) -> list[Change]:
    """Return all differences that matter to data, sorted by where they are.

    Args:
        old: The version that readers know.
        new: The version that they may meet.
    """
    found = [*_tables(old, new), *_files(old, new), *_rules(old, new)]
    if old.conservation != new.conservation:
        found.append(Change("conservation", "changed", True))
    return sorted(found, key=lambda change: (change.where, change.what))


def _tables(old: Contract, new: Contract) -> Iterator[Change]:
    for table in old.tables.keys() - new.tables.keys():
        yield Change(table, "table removed", True)
    for table in new.tables.keys() - old.tables.keys():
        yield Change(table, "table added", True)
    for table in old.tables.keys() & new.tables.keys():
        yield from _columns(table, old.columns(table), new.columns(table))


def _files(old: Contract, new: Contract) -> Iterator[Change]:
    before = {rule.name: rule for rule in old.files}
    after = {rule.name: rule for rule in new.files}
    for name in before.keys() | after.keys():
        yield from _file(f"file {name}", before.get(name), after.get(name))


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    for rule in set(new.rules) - set(old.rules):
        yield Change(f"rule {rule}", "added", True)
    for rule in set(old.rules) - set(new.rules):
        yield Change(f"rule {rule}", "removed", False)


def _file(where: str, old: FileRule | None, new: FileRule | None) -> Iterator[Change]:
    if old is None and new is not None:
        kind = "required" if new.required else "optional"
        yield Change(where, f"{kind} file added", new.required)
    elif old is not None and new is None:
        yield Change(where, "file removed", True)
    elif old is not None and new is not None:
        if old.glob != new.glob:
            yield Change(where, f"{old.glob} → {new.glob}", True)
        if old.required != new.required:
            yield Change(where, "now required" if new.required else "now optional", True)


def _columns(table: str, old: list[SchemaProperty], new: list[SchemaProperty]) -> Iterator[Change]:
    before = _by_name(old)
    after = _by_name(new)
    for name in before.keys() - after.keys():
        yield Change(f"{table}.{name}", "column removed", True)
    for name in after.keys() - before.keys():
        is_required = bool(after[name].required)
        kind = "required" if is_required else "nullable"
        yield Change(f"{table}.{name}", f"{kind} column added", is_required)
    for name in before.keys() & after.keys():
        yield from _column(f"{table}.{name}", before[name], after[name])


def _by_name(columns: list[SchemaProperty]) -> dict[str, SchemaProperty]:
    return {str(column.name): column for column in columns}


def _column(where: str, old: SchemaProperty, new: SchemaProperty) -> Iterator[Change]:
    if (old.logicalType, old.physicalType) != (new.logicalType, new.physicalType):
        yield Change(where, f"type {old.physicalType} → {new.physicalType}", True)
    if bool(old.required) != bool(new.required):
        yield Change(where, "now required" if new.required else "now nullable", True)
    unique = bool(new.unique or new.primaryKey)
    if unique != bool(old.unique or old.primaryKey):
        yield Change(where, "now unique" if unique else "no longer unique", unique)
    yield from _options(where, old.logicalTypeOptions or {}, new.logicalTypeOptions or {})
    yield from _choices(where, _values(old), _values(new))
    if old.items is not None and new.items is not None:
        yield from _column(where + "[]", old.items, new.items)
    yield from _fields(where, old.properties or [], new.properties or [])


def _fields(where: str, old: list[SchemaProperty], new: list[SchemaProperty]) -> Iterator[Change]:
    if list(_by_name(old)) != list(_by_name(new)):
        yield Change(where, "fields changed", True)
        return
    for one, other in zip(old, new, strict=True):
        yield from _column(f"{where}.{one.name}", one, other)


def _options(where: str, old: dict[str, object], new: dict[str, object]) -> Iterator[Change]:
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before != after:
            yield Change(where, f"{key} {before} → {after}", _is_stricter(key, before, after))


def _values(prop: SchemaProperty) -> set[str]:
    return {str(choice.value) for choice in prop.enum or []}


def _choices(where: str, old: set[str], new: set[str]) -> Iterator[Change]:
    if not old and new:
        yield Change(where, f"now one of {', '.join(sorted(new))}", True)
    elif old and not new:
        yield Change(where, "no longer one of a list", True)
    else:
        for choice in old - new:
            yield Change(where, f"choice {choice} removed", True)
        for choice in new - old:
            yield Change(where, f"choice {choice} added", False)


def _is_stricter(key: str, old: object, new: object) -> bool:
    if new is None:
        return False
    if old is None or key not in _BOUNDS:
        return True
    return (float(str(new)) - float(str(old))) * _BOUNDS[key] > 0
