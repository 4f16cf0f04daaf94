"""A contract, as read from its YAML (Open Data Contract Standard v3.1), and the Arrow schema it stands for.

Spec: https://bitol-io.github.io/open-data-contract-standard/v3.1.0/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.bundles import RULES
from data_contracts.errors import ContractError
from data_contracts.files import matches, read_bounded
from data_contracts.foreign_text import brief
from data_contracts.migrations import MAJOR_STEPS, Migration, SplitOff

ROOT = Path(__file__).parent
MOST_BYTES, MOST_VALUES = (
    1 << 20,
    100_000,
)  # of a contract file: a hundred times what the largest has
STAMP = (
    b"groundup.contract"  # key in every Parquet footer; the value is "artifact_type/table version"
)

_SCALARS: dict[str, tuple[str, pa.DataType]] = {  # physicalType → logicalType, Arrow type
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
_OPTIONS = {  # the rules that check.py checks, by logicalType; a contract with any other would promise what nobody checks
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "array": {"minItems", "maxItems"},
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, order=True)
class Version:
    """A semantic version; ordering is numeric."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", text):
            raise ContractError(
                f"version {brief(text)}",
                "is not of the form MAJOR.MINOR.PATCH",
                "write it as e.g. 1.0.0",
            )
        return cls(*map(int, text.split(".")))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True)
class FileRule:
    """A file, or a glob of files, that an artifact holds beside or instead of tables."""

    name: str
    glob: str
    required: bool
    description: str

    def matches(self, path: str) -> bool:
        return matches(path, self.glob)


class Conservation(BaseModel):
    """Rows of `source` ("artifact_type.table") must all be found again, once, in the tables `into`: the same primary keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(alias="from", pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")
    into: tuple[str, ...] = Field(min_length=1)


class _Custom(BaseModel):
    """The custom properties that a contract may have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[str, ...] = ()
    conservation: Conservation | None = None


@dataclass(frozen=True)
class Contract:
    """One artifact type at one version: its tables, its files, and the rules that must hold."""

    artifact_type: str
    version: Version
    purpose: str
    usage: str
    tables: dict[str, SchemaObject]
    files: tuple[FileRule, ...]
    rules: tuple[str, ...]
    conservation: Conservation | None
    path: Path

    def arrow_schema(self, table: str) -> pa.Schema:
        """The Arrow schema that writers of `table` must use, stamped with artifact type, table and version."""
        fields = [_field(prop) for prop in self.columns(table)]
        return pa.schema(
            fields, metadata={STAMP: f"{self.artifact_type}/{table} {self.version}".encode()}
        )

    def columns(self, table: str) -> list[SchemaProperty]:
        return self.tables[table].properties or []

    def primary_key(self, table: str) -> str | None:
        """The column that tells the rows of `table` apart, if one does."""
        return next((str(prop.name) for prop in self.columns(table) if prop.primaryKey), None)


FastLoader = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # every command reads all contracts: libyaml takes a tenth of the time


def _plain_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file says. Raises ValueError for one that is too long, or that becomes too much when its aliases are written out."""
    value = yaml.load(read_bounded(path, MOST_BYTES).decode("utf-8"), FastLoader)
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen + len(waiting) > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values")
        if isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    return value


def load(path: Path) -> Contract:
    """Read one contract file.

    Raises ContractError if the file is not a valid contract, uses a type that groundup does not know, or states a rule
    that groundup does not check.
    """
    try:
        odcs = OpenDataContractStandard(**_plain_yaml(path))
    except (
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        OSError,
        yaml.YAMLError,
    ) as error:
        raise ContractError(
            str(path), f"is not an ODCS v3.1 contract: {error}", f"run: datacontract lint {path}"
        ) from error
    try:
        custom = _Custom.model_validate(
            {str(prop.property): prop.value for prop in odcs.customProperties or []}
        )
    except ValidationError as error:
        told = [
            f"custom property {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        ]
        raise ContractError(str(path), "; ".join(told), "correct the contract") from None
    objects = odcs.schema_ or []
    contract = Contract(
        artifact_type=str(odcs.name),
        version=Version.parse(str(odcs.version)),
        purpose=(odcs.description.purpose or "") if odcs.description else "",
        usage=(odcs.description.usage or "") if odcs.description else "",
        tables={str(obj.name): obj for obj in objects if obj.physicalType == "table"},
        files=tuple(
            FileRule(
                str(prop.name), str(prop.physicalName), bool(prop.required), prop.description or ""
            )
            for obj in objects
            if obj.physicalType == "files"
            for prop in obj.properties or []
        ),
        rules=custom.rules,
        conservation=custom.conservation,
        path=path,
    )
    if told := [*_faults(contract), *(line for obj in objects for line in _object_faults(obj))]:
        raise ContractError(str(path), "; ".join(told), "correct the contract")
    return contract


@dataclass(frozen=True)
class Contracts:
    """All released versions of all artifact types under one root folder, `<artifact_type>/v<MAJOR>[.<MINOR>].yaml`, and the migrations between them.

    steps: (artifact_type, table, old major) → function from the newest minor of that major to the next major.
    """

    root: Path = ROOT
    steps: Mapping[tuple[str, str, int], Migration | SplitOff] = field(
        default_factory=lambda: MAJOR_STEPS
    )

    @property
    def artifact_types(self) -> list[str]:
        return sorted({path.parent.name for path in self.root.glob("*/v*.yaml")})

    def versions(self, artifact_type: str) -> list[Contract]:
        """Every released version of `artifact_type`, oldest first."""
        found = sorted(
            (_released(path) for path in (self.root / artifact_type).glob("v*.yaml")),
            key=lambda c: c.version,
        )
        if not found:
            raise ContractError(
                f"contract {artifact_type!r}",
                "there is none of that name",
                f"choose one of: {', '.join(self.artifact_types)}",
            )
        return found

    def current(self, artifact_type: str) -> Contract:
        """The newest released version: the one that writers use."""
        return self.versions(artifact_type)[-1]


SHIPPED = Contracts()


@cache  # worker processes ask for the same contract at every shard
def _released(path: Path) -> Contract:
    """A contract that lies where its artifact_type and version belong. Raises ContractError if it does not."""
    contract = load(path)
    major, _, minor = path.stem.removeprefix("v").partition(".")
    if path.parent.name != contract.artifact_type:
        why = f"name {contract.artifact_type!r} is not that of the folder"
    elif (major, minor or "0") != (str(contract.version.major), str(contract.version.minor)):
        why = f"version {contract.version} does not fit the file's name"
    else:
        return contract
    raise ContractError(str(path), why, "correct the contract, or move the file")


@cache
def current(artifact_type: str) -> Contract:
    """The newest contract of `artifact_type` that this release of groundup ships."""
    return SHIPPED.current(artifact_type)


def _object_faults(obj: SchemaObject) -> Iterator[str]:
    if obj.physicalType not in ("table", "files"):
        yield f"{obj.name}: physicalType is neither table nor files"
    if obj.quality:
        yield f"{obj.name}: quality rules are not checked"


def _faults(contract: Contract) -> Iterator[str]:
    for name in contract.rules:
        if name not in RULES:
            yield f"rule {name!r} is not known, choose from: {', '.join(RULES)}"
    for table in contract.tables:
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
    if contract.conservation:
        if lost := set(contract.conservation.into) - contract.tables.keys():
            yield f"conservation: no tables {sorted(lost)}"
        elif (
            len(keys := {contract.primary_key(table) for table in contract.conservation.into}) > 1
            or None in keys
        ):
            yield f"conservation: {' and '.join(contract.conservation.into)} need a primary key of one name, to tell rows by"


def _column_faults(where: str, prop: SchemaProperty) -> Iterator[str]:
    if not _NAME.fullmatch(str(prop.name)):
        yield f"{where}: not a plain name"
    if prop.quality:
        yield f"{where}: quality rules are not checked"
    if unknown := set(prop.logicalTypeOptions or {}) - _OPTIONS.get(str(prop.logicalType), set()):
        yield f"{where}: {', '.join(sorted(unknown))} is not checked on {prop.logicalType}"
    if prop.logicalType == "array" and prop.items is not None:
        yield from _column_faults(where + "[]", prop.items)
    elif prop.logicalType == "object" and prop.properties:
        for child in prop.properties:
            yield from _column_faults(f"{where}.{child.name}", child)
    elif str(prop.physicalType) not in _SCALARS:
        yield f"{where}: physicalType {prop.physicalType!r} is not known, use one of: {', '.join(_SCALARS)}"
    else:
        yield from _scalar_faults(where, prop)
        return
    if prop.unique or prop.primaryKey or prop.enum:
        yield f"{where}: unique and enum are checked on plain columns only"


def _scalar_faults(where: str, prop: SchemaProperty) -> Iterator[str]:
    logical, arrow = _SCALARS[str(prop.physicalType)]
    if prop.logicalType != logical:
        yield f"{where}: {prop.physicalType} is logicalType {logical}, not {prop.logicalType}"
    if (prop.unique or prop.primaryKey) and not prop.required:
        yield f"{where}: a unique column must be required"
    try:
        pa.array([choice.value for choice in prop.enum or []], arrow)
        pc.match_substring_regex(pa.array([""]), (prop.logicalTypeOptions or {}).get("pattern", ""))
    except (pa.ArrowException, TypeError) as error:
        yield f"{where}: {error}"


def _field(prop: SchemaProperty) -> pa.Field:
    # the description travels in the contract, not in each footer
    return pa.field(str(prop.name), _arrow_type(prop), nullable=not prop.required)


def _arrow_type(prop: SchemaProperty) -> pa.DataType:
    if prop.logicalType == "array" and prop.items is not None:
        return pa.list_(pa.field("item", _arrow_type(prop.items), nullable=not prop.items.required))
    if prop.logicalType == "object" and prop.properties:
        return pa.struct([_field(child) for child in prop.properties])
    return _SCALARS[str(prop.physicalType)][1]
