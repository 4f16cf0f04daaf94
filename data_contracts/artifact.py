"""An immutable artifact on disk, and the manifest that says what it is and lists every file with its sha256."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_contracts import bundles, check, migrations
from data_contracts.contract import SHIPPED, Contract, Contracts, Version
from data_contracts.errors import ArtifactError, ContractError, make_again
from data_contracts.files import batches, is_file, is_plain, listing, no_duplicates, refusal, sha256
from data_contracts.identity import ID_DIGITS, canonical

MANIFEST = "manifest.json"


def _plain(path: str) -> str:
    if not is_plain(path):
        raise ValueError(f"{path!r} is not a plain relative path")
    return path


def _each_once(files: list[FileEntry]) -> list[FileEntry]:
    if len({entry.path for entry in files}) != len(files):
        raise ValueError("a file is listed twice")
    return files


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may say more


class FileEntry(_Frozen):
    """path is relative to the artifact, with forward slashes, and stays inside it."""

    path: Annotated[str, AfterValidator(_plain)]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class InputRef(_Frozen):
    noun: str
    id: str


class Manifest(_Frozen):
    """Everything that is known of an artifact. Written last: an artifact without it does not exist.

    config: what of the settings bears on the result, as it entered the id. settings: all of them, as they were given.
    """

    groundup: str
    id: str = Field(pattern=rf"^[0-9a-f]{{{ID_DIGITS}}}$")
    noun: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    contract: str
    stage: str
    stage_version: int
    as_of: str | None
    config: dict[str, Any]
    settings: dict[str, Any]
    inputs: dict[str, InputRef]
    rows: dict[str, int]
    facts: dict[str, Any]
    files: Annotated[list[FileEntry], AfterValidator(_each_once)]
    started: str
    finished: str

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Raises ValueError for what is no manifest: no JSON, a key twice, a path that leads out of the artifact …"""
        try:
            return cls.model_validate(json.loads(text, object_pairs_hook=no_duplicates))
        except RecursionError:
            raise ValueError("nested too deeply") from None

    @property
    def content(self) -> str:
        """One digest over all files: equal content, equal digest, whenever and wherever it was made."""
        return hashlib.sha256(canonical([(f.path, f.sha256) for f in self.files]).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)


class Artifact:
    """A published artifact, for reading. Readers see what the manifest lists and nothing else."""

    def __init__(self, place: Path, manifest: Manifest, contracts: Contracts = SHIPPED, fetch: Callable[[], None] | None = None):
        """place: the folder of the files. fetch: puts them there, if they are elsewhere until somebody wants them."""
        self.place, self.manifest, self.contracts, self._fetch = place, manifest, contracts, fetch

    @classmethod
    def at(cls, path: Path, contracts: Contracts = SHIPPED) -> Artifact:
        """Open the folder of an artifact without checking its files; see `verify`."""
        try:
            manifest = Manifest.parse((path / MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(f"artifact {path}", "has no manifest: it does not exist or was never finished", _rebuild(path)) from None
        except (ValueError, OSError) as error:  # pydantic's errors are ValueErrors
            raise ArtifactError(f"artifact {path}", f"its {MANIFEST} cannot be read: {error}", _rebuild(path)) from None
        return cls(path, manifest, contracts)

    @property
    def path(self) -> Path:
        """The folder with its files in it; those of a store behind a URL are fetched now."""
        if self._fetch:
            self._fetch()
            self._fetch = None
        return self.place

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def noun(self) -> str:
        return self.manifest.noun

    @property
    def contract(self) -> Contract:
        """The contract that this release reads the noun with."""
        return self.contracts.current(self.noun)

    @property
    def version(self) -> Version:
        """The contract version that the artifact was written with."""
        return Version.parse(self.manifest.contract)

    def __repr__(self) -> str:
        return f"{self.noun}/{self.id}"

    def rows(self, table: str) -> int:
        if table in self.manifest.rows:
            return self.manifest.rows[table]
        if table in self.contract.tables:
            return sum(batch.num_rows for batch in self.batches(table))  # the version that it was written under had no such table
        raise self._no_such("table", table, list(self.manifest.rows))

    def table_paths(self, table: str) -> list[Path]:
        """The Parquet files of a table, in shard order."""
        return [self.path / f.path for f in self.manifest.files if f.path.startswith(f"{table}/") and f.path.endswith(".parquet")]

    def batches(self, table: str, columns: Sequence[str] | None = None, batch_size: int = 4096) -> Iterator[pa.RecordBatch]:
        """Rows of `table` in written order, as the current contract has them.

        Older versions are migrated on the way; columns that a newer minor version added are left out. A batch has fewer rows
        than `batch_size` where they are so long that it would pass 64 MB.
        """
        wanted = self._schema(table, columns)
        older = self.version < self.contract.version
        stored = migrations.stored_as(self.contracts, self.noun, table, self.version)
        for path in self.table_paths(stored):
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if not older and (lost := set(wanted.names) - set(file.schema_arrow.names)):
                    raise ContractError(
                        f"{self} {stored}/{path.name}", f"has no columns {sorted(lost)}", _rebuild(self.place, self.manifest.stage)
                    )
                for batch in batches(file, batch_size, None if older else wanted.names):
                    if older:
                        batch = migrations.upgrade(self.contracts, self.noun, table, batch, self.version)
                    yield pa.RecordBatch.from_arrays([batch.column(name) for name in wanted.names], schema=wanted)

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table in memory."""
        return pa.Table.from_batches(self.batches(table, columns), self._schema(table, columns))

    def files(self, name: str) -> list[Path]:
        """All files that fall under the file rule `name` of the contract."""
        rule = next((rule for rule in self.contract.files if rule.name == name), None)
        if rule is None:
            raise self._no_such("file", name, [rule.name for rule in self.contract.files])
        return [self.path / entry.path for entry in self.manifest.files if rule.matches(entry.path)]

    def file(self, name: str) -> Path:
        """The one file that falls under the file rule `name`."""
        found = self.files(name)
        if len(found) != 1:
            raise ArtifactError(f"{self}", f"{len(found)} files fall under {name!r}, wanted one", _rebuild(self.place, self.manifest.stage))
        return found[0]

    def verify(self) -> None:
        """Compare every file with the manifest, byte for byte.

        Raises ArtifactError naming each file that is missing, extra, cut short, changed, or a link.
        """
        listed = {MANIFEST, *(entry.path for entry in self.manifest.files)}
        try:
            wrong = [f"{name} is not in the manifest" for name in listing(self.path) if name not in listed]
        except OSError as error:
            wrong = [f"its folder cannot be read: {error}"]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets go of the interpreter
            wrong += [told for told in pool.map(self._damage, self.manifest.files) if told]
        if wrong:
            raise ArtifactError(f"artifact {self}", "; ".join(wrong), _rebuild(self.place, self.manifest.stage))

    def check(self) -> int:
        """Hold the content against its contract once more, as at publish; returns the rows. (`verify` shows that nothing changed since.)

        Of a newer minor version, whose bounds may be wider, only the columns that this release reads are looked for.
        Raises ContractError that tells every violation found.
        """
        versions = [contract for contract in self.contracts.versions(self.noun) if contract.version <= self.version]
        if not versions or versions[-1].version.major != self.version.major:
            why = f"was written under contract {self.version}, which this release does not know"
            raise ContractError(f"artifact {self}", why, "install another groundup")
        contract = versions[-1]
        newer = self.version > contract.version
        told = [] if newer else bundles.problems(contract, self.path, ignore=MANIFEST)
        rows = 0
        for table in contract.tables:
            count, violations = check.table(contract, table, self.path, newer)
            rows += count
            told += violations
        if told:
            raise refusal(f"artifact {self} (contract {contract.version})", told, _rebuild(self.place, self.manifest.stage))
        return rows

    def require(self, accepts: int) -> str | None:
        """Refuse a contract version that a reader of major version `accepts` cannot read; returns a note where it reads less than is there.

        Raises ContractError for a newer major version, and for an older one from which no migration leads here.
        """
        if self.version.major > accepts:
            why = f"was written under contract {self.version}; this release reads {self.noun} up to {accepts}.x"
            raise ContractError(f"artifact {self}", why, "install a newer groundup")
        if self.version.major < accepts and not migrations.reaches(self.contracts, self.noun, self.version, self.contract.version):
            why = f"was written under contract {self.version} and no migration leads to {accepts}.x"
            raise ContractError(f"artifact {self}", why, _rebuild(self.place, self.manifest.stage))
        if self.version > self.contract.version:
            return (
                f"{self} was written under contract {self.version}, newer than {self.contract.version}: columns that it added are left out"
            )
        return None

    def _schema(self, table: str, columns: Sequence[str] | None) -> pa.Schema:
        if table not in self.contract.tables:
            raise self._no_such("table", table, list(self.contract.tables))
        schema = self.contract.arrow_schema(table).remove_metadata()
        if columns is None:
            return schema
        if unknown := [name for name in columns if name not in schema.names]:
            raise self._no_such("column", f"{table}.{unknown[0]}", schema.names)
        return pa.schema([schema.field(name) for name in columns])

    def _damage(self, entry: FileEntry) -> str | None:
        try:
            return self._difference(entry)
        except OSError as error:
            return f"{entry.path} cannot be read: {error.strerror}"

    def _difference(self, entry: FileEntry) -> str | None:
        path = self.path / entry.path
        if any(place.is_symlink() for place in (path, *path.parents[: entry.path.count("/") + 1])):
            return f"{entry.path} is a link"
        if not is_file(path):
            return f"{entry.path} is missing"
        if (size := path.stat().st_size) != entry.bytes:
            return f"{entry.path} has {size:,} bytes, the manifest says {entry.bytes:,}"
        if sha256(path) != entry.sha256:
            return f"{entry.path} does not have the sha256 of the manifest: it was changed or damaged"
        return None

    def _no_such(self, kind: str, name: str, known: Sequence[str]) -> ContractError:
        return ContractError(f"{self}", f"its contract has no {kind} {name!r}", f"choose from: {', '.join(known)}")


def _rebuild(path: Path, stage: str | None = None) -> str:
    return f"rm -r {shlex.quote(str(path))}   then {make_again(stage)}"
