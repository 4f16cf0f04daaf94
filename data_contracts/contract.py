"""A contract, read from its YAML (Open Data Contract Standard v3.1), and its Arrow schema.

Spec: https://bitol-io.github.io/open-data-contract-standard/v3.1.0/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.contract_faults import SCALARS, faults
from data_contracts.errors import ContractError
from data_contracts.files import matches, read_bounded
from data_contracts.foreign_text import brief
from data_contracts.migrations import MAJOR_STEPS, Migration, SplitOff

ROOT = Path(__file__).parent
# A contract file may have a hundred times what the largest has.
MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
# Key in every Parquet footer; the value is "artifact_type/table version".
STAMP = b"groundup.contract"

# Every command reads all contracts, and libyaml takes a tenth of the time.
FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    OSError,
    yaml.YAMLError,
)


@dataclass(frozen=True, order=True)
class Version:
    """A semantic version; ordering is numeric."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse MAJOR.MINOR.PATCH. Raises ContractError for anything else."""
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
    """A file, or a glob of files, that an artifact holds beside tables or instead of them."""

    name: str
    glob: str
    required: bool
    description: str

    def matches(self, path: str) -> bool:
        """Return whether a relative path falls under the rule."""
        return matches(path, self.glob)


class Conservation(BaseModel):
    """Every primary key of one table must occur once in the tables made from it.

    Attributes:
        source: The table that came in, as "artifact_type.table"; `from` in the YAML.
        into: The tables that go out.
    """

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
        """Return the Arrow schema that writers of `table` must use.

        It is stamped with artifact type, table and version.
        """
        fields = list(map(_field, self.columns(table)))
        stamp = f"{self.artifact_type}/{table} {self.version}"
        return pa.schema(fields, metadata={STAMP: stamp.encode()})

    def columns(self, table: str) -> list[SchemaProperty]:
        """Return what the contract says of each column of `table`, in order."""
        return self.tables[table].properties or []

    def primary_key(self, table: str) -> str | None:
        """Return the column that identifies the rows of `table`, if there is one."""
        for prop in self.columns(table):
            if prop.primaryKey:
                return str(prop.name)
        return None


def _plain_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file within bounds.

    Raises:
        ValueError: It is too long, or has too many values once its aliases are expanded.
    """
    document = yaml.load(read_bounded(path, MAX_BYTES).decode("utf-8"), FastLoader)
    if not isinstance(document, dict):
        raise ValueError("it is no mapping")
    waiting: list[Any] = [document]
    seen = 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen + len(waiting) > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return document


def load(path: Path) -> Contract:
    """Read one contract file.

    Raises:
        ContractError: The file is not a valid contract, uses a type that groundup does not know, or
            states a rule that groundup does not check.
    """
    odcs = _read_odcs(path)
    custom = _read_custom(odcs, path)
    objects = odcs.schema_ or []
    contract = Contract(
        artifact_type=str(odcs.name),
        version=Version.parse(str(odcs.version)),
        purpose=(odcs.description.purpose or "") if odcs.description else "",
        usage=(odcs.description.usage or "") if odcs.description else "",
        tables={str(obj.name): obj for obj in objects if obj.physicalType == "table"},
        files=_file_rules(objects),
        rules=custom.rules,
        conservation=custom.conservation,
        path=path,
    )
    found = list(faults(contract, objects))
    if found:
        raise ContractError(str(path), "; ".join(found), "correct the contract")
    return contract


def _read_odcs(path: Path) -> OpenDataContractStandard:
    try:
        return OpenDataContractStandard(**_plain_yaml(path))
    except _UNREADABLE as error:
        why = f"is not an ODCS v3.1 contract: {error}"
        raise ContractError(str(path), why, f"run: datacontract lint {path}") from error


def _read_custom(odcs: OpenDataContractStandard, path: Path) -> _Custom:
    properties = {str(prop.property): prop.value for prop in odcs.customProperties or []}
    try:
        return _Custom.model_validate(properties)
    except ValidationError as error:
        faults = error.errors()
    lines = []
    for fault in faults:
        where = ".".join(map(str, fault["loc"]))
        lines.append(f"custom property {where}: {fault['msg']}")
    raise ContractError(str(path), "; ".join(lines), "correct the contract")


def _file_rules(objects: list[SchemaObject]) -> tuple[FileRule, ...]:
    rules = []
    for obj in objects:
        if obj.physicalType != "files":
            continue
        for prop in obj.properties or []:
            rule = FileRule(
                name=str(prop.name),
                glob=str(prop.physicalName),
                required=bool(prop.required),
                description=prop.description or "",
            )
            rules.append(rule)
    return tuple(rules)


@dataclass(frozen=True)
class Contracts:
    """All released contracts under one folder, and the migrations between them.

    Attributes:
        root: The folder, with files `<artifact_type>/v<MAJOR>[.<MINOR>].yaml`.
        steps: By (artifact_type, table, old major), the function from the newest minor version of
            that major version to the next major version.
    """

    root: Path = ROOT
    steps: Mapping[tuple[str, str, int], Migration | SplitOff] = field(
        default_factory=lambda: MAJOR_STEPS
    )

    def __reduce__(self) -> Any:
        """Send the released contracts by name: every machine has them in a folder of its own."""
        return "SHIPPED" if self is SHIPPED else super().__reduce__()

    @property
    def artifact_types(self) -> list[str]:
        """Every artifact type that has a contract, in order."""
        return sorted({path.parent.name for path in self.root.glob("*/v*.yaml")})

    def versions(self, artifact_type: str) -> list[Contract]:
        """Return every released version of `artifact_type`, oldest first.

        Raises:
            ContractError: There is no contract of that name.
        """
        contracts = list(map(_released, (self.root / artifact_type).glob("v*.yaml")))
        if not contracts:
            raise ContractError(
                f"contract {artifact_type!r}",
                "does not exist",
                f"choose one of: {', '.join(self.artifact_types)}",
            )
        return sorted(contracts, key=lambda contract: contract.version)

    def current(self, artifact_type: str) -> Contract:
        """Return the newest released version: the one that writers use."""
        return self.versions(artifact_type)[-1]


SHIPPED = Contracts()


@cache  # worker processes ask for the same contract at every shard
def _released(path: Path) -> Contract:
    """Return a contract whose path agrees with its artifact type and version.

    Raises:
        ContractError: They do not agree.
    """
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
    """Return the newest contract of `artifact_type` that this release of groundup ships."""
    return SHIPPED.current(artifact_type)


def _field(prop: SchemaProperty) -> pa.Field:
    # The description is in the contract, so the footers do not repeat it.
    return pa.field(str(prop.name), _arrow_type(prop), nullable=not prop.required)


def _arrow_type(prop: SchemaProperty) -> pa.DataType:
    if prop.logicalType == "array" and prop.items is not None:
        return pa.list_(pa.field("item", _arrow_type(prop.items), nullable=not prop.items.required))
    if prop.logicalType == "object" and prop.properties:
        return pa.struct(list(map(_field, prop.properties)))
    return SCALARS[str(prop.physicalType)][1]
