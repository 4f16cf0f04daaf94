"""An immutable artifact on disk, and the manifest that says what it is and lists every file with its sha256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts import bundles, check, migrations
from data_contracts.contract import SHIPPED, Contract, Contracts, Version
from data_contracts.errors import ArtifactError, ContractError, make_again
from data_contracts.files import batches, is_file, listing, read_bounded, refusal, sha256, shown
from data_contracts.store import repair
from data_contracts.store.manifest import MANIFEST, MAX_BYTES, FileEntry, InputRef, Manifest
from data_contracts.store.repair import Damage

__all__ = ["MANIFEST", "Artifact", "FileEntry", "InputRef", "Manifest"]


class Artifact:
    """A published artifact, for reading. Readers see what the manifest lists and nothing else."""

    def __init__(
        self,
        place: Path,
        manifest: Manifest,
        digest: str,
        contracts: Contracts = SHIPPED,
        fetch: Callable[[], None] | None = None,
    ):
        """place: the folder of the files. digest: sha256 of the manifest as it is written, in hex.

        fetch: puts the files there, if they are elsewhere until somebody wants them.
        """
        self.place, self.manifest, self.digest, self.contracts = place, manifest, digest, contracts
        self._fetch = fetch

    @classmethod
    def at(cls, path: Path, contracts: Contracts = SHIPPED) -> Artifact:
        """Open the folder of an artifact without checking its files; see `verify`.

        Raises ArtifactError if there is none, or if its manifest is none.
        """
        what, known = f"artifact {path}", f"{path.parent.name}/{path.name}"
        try:
            written = read_bounded(path / MANIFEST, MAX_BYTES)
            manifest = Manifest.parse(written)
        except (FileNotFoundError, NotADirectoryError):
            fix = repair.rebuild(known) if os.path.lexists(path) else make_again()
            why = "has no manifest: it does not exist or was never finished"
            raise ArtifactError(what, why, fix) from None
        except OSError as error:
            damage = repair.of_error(MANIFEST, path / MANIFEST, error)
            raise ArtifactError(
                what, f"its {damage.what}", repair.advice(known, [damage])
            ) from None
        except ValueError as error:  # pydantic's errors are ValueErrors
            damage = Damage(f"{MANIFEST} cannot be read: {error}", "content", path)
            raise ArtifactError(
                what, f"its {damage.what}", repair.advice(known, [damage])
            ) from None
        return cls(path, manifest, hashlib.sha256(written).hexdigest(), contracts)

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
    def artifact_type(self) -> str:
        return self.manifest.artifact_type

    @property
    def contract(self) -> Contract:
        """The contract that this release reads the artifact type with."""
        return self.contracts.current(self.artifact_type)

    @property
    def version(self) -> Version:
        """The contract version that the artifact was written with."""
        return Version.parse(self.manifest.contract)

    def __repr__(self) -> str:
        return f"{self.artifact_type}/{self.id}"

    def rows(self, table: str) -> int:
        if table in self.manifest.rows:
            return self.manifest.rows[table]
        if table in self.contract.tables:
            # the version that it was written under had no such table
            return sum(batch.num_rows for batch in self.batches(table))
        raise self._no_such("table", table, list(self.manifest.rows))

    def table_paths(self, table: str) -> list[Path]:
        """The Parquet files of a table, in shard order."""
        return [
            self.path / f.path
            for f in self.manifest.files
            if f.path.startswith(f"{table}/") and f.path.endswith(".parquet")
        ]

    def batches(
        self, table: str, columns: Sequence[str] | None = None, batch_size: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """Rows of `table` in written order, as the current contract has them.

        Older versions are migrated on the way; columns that a newer minor version added are left out. A batch has fewer rows
        than `batch_size` where they are so long that it would pass 64 MB.
        """
        wanted = self._schema(table, columns)
        older = self.version < self.contract.version
        stored = migrations.stored_as(self.contracts, self.artifact_type, table, self.version)
        for path in self.table_paths(stored):
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if not older and (lost := set(wanted.names) - set(file.schema_arrow.names)):
                    raise ContractError(
                        f"{self} {stored}/{path.name}",
                        f"has no columns {sorted(lost)}",
                        self._rebuild(),
                    )
                for batch in batches(file, batch_size, None if older else wanted.names):
                    if older:
                        batch = migrations.upgrade(
                            self.contracts, self.artifact_type, table, batch, self.version
                        )
                    yield pa.RecordBatch.from_arrays(
                        [batch.column(name) for name in wanted.names], schema=wanted
                    )

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
            raise ArtifactError(
                f"{self}", f"{len(found)} files fall under {name!r}, wanted one", self._rebuild()
            )
        return found[0]

    def verify(self) -> None:
        """Compare every file with the manifest, byte for byte, and the id with what the manifest says it is made of.

        Raises ArtifactError naming each file that is missing, extra, cut short, changed, or a link.
        """
        listed = {MANIFEST, *(entry.path for entry in self.manifest.files)}
        folder, found = self.path, []
        try:
            strays = [name for name in listing(folder) if name not in listed]
            found += [
                Damage(f"{shown(name)} is not in the manifest", "stray", folder / name)
                for name in strays
            ]
        except OSError as error:
            found.append(repair.of_error("its folder", folder, error))
        if (computed := self.manifest.identity.id) != self.id:
            why = f"its id is not that of the stage, settings and inputs in its manifest, which is {computed}"
            found.append(Damage(why, "content", folder))
        with ThreadPoolExecutor(
            min(8, os.cpu_count() or 1)
        ) as pool:  # hashing lets go of the interpreter
            found += [damage for damage in pool.map(self._damage, self.manifest.files) if damage]
        if found:
            raise ArtifactError(
                f"artifact {self}", "; ".join(one.what for one in found), self._advice(found)
            )

    def check_files(self) -> None:
        """Hold the files against the contract, as at publish, if it has rules for files; tables are not read.

        Raises:
            ContractError: A file is missing, allowed by no rule, or not what its rule says.
        """
        contract = self.contract
        if not contract.files or self.version.major != contract.version.major:
            return
        if self.version > contract.version:  # may have files that this release does not know
            return
        told = bundles.problems(contract, self.path, ignore=MANIFEST, reads_tables=False)
        if told:
            raise refusal(f"artifact {self} (contract {contract.version})", told, self._rebuild())

    def check(self) -> int:
        """Hold the content against its contract once more, as at publish, and its rows against the manifest; returns the rows.

        (`verify` shows that nothing changed since.) Of a newer minor version, whose bounds may be wider, only the columns that this
        release reads are looked for.
        Raises ContractError that tells every violation found.
        """
        versions = [
            contract
            for contract in self.contracts.versions(self.artifact_type)
            if contract.version <= self.version
        ]
        if not versions or versions[-1].version.major != self.version.major:
            why = f"was written under contract {self.version}, which this release does not know"
            raise ContractError(f"artifact {self}", why, "install another groundup")
        contract = versions[-1]
        newer = self.version > contract.version
        told = [] if newer else bundles.problems(contract, self.path, ignore=MANIFEST)
        rows = {}
        for table in contract.tables:
            rows[table], violations = check.table(contract, table, self.path, newer)
            told += violations
        if not told:
            told = self._miscounted(rows, newer)
        if told:
            raise refusal(f"artifact {self} (contract {contract.version})", told, self._rebuild())
        return sum(rows.values())

    def require(self, accepts: int) -> str | None:
        """Refuse a contract version that a reader of major version `accepts` cannot read; returns a note where it reads less than is there.

        Raises ContractError for a newer major version, and for an older one from which no migration leads here.
        """
        if self.version.major > accepts:
            why = f"was written under contract {self.version}; this release reads {self.artifact_type} up to {accepts}.x"
            raise ContractError(f"artifact {self}", why, "install a newer groundup")
        if self.version.major < accepts and not migrations.reaches(
            self.contracts, self.artifact_type, self.version, self.contract.version
        ):
            why = f"was written under contract {self.version} and no migration leads to {accepts}.x"
            raise ContractError(f"artifact {self}", why, self._rebuild())
        if self.version > self.contract.version:
            return f"{self} was written under contract {self.version}, newer than {self.contract.version}: columns that it added are left out"
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

    def _miscounted(self, rows: dict[str, int], newer: bool) -> list[str]:
        """Tables of which the manifest says another number of rows. A newer minor version may have tables more."""
        written = self.manifest.rows
        wrong = [
            f"{table} has {count:,} rows, the manifest says {written.get(table, 'nothing')}"
            for table, count in rows.items()
            if written.get(table) != count
        ]
        if not newer:
            wrong += [
                f"the manifest counts rows of {table}, which is no table"
                for table in written
                if table not in rows
            ]
        return wrong

    def _damage(self, entry: FileEntry) -> Damage | None:
        path = self.path / entry.path
        try:
            difference = self._difference(entry, path)
        except OSError as error:
            return repair.of_error(entry.path, path, error)
        return Damage(f"{entry.path} {difference}", "content", path) if difference else None

    def _difference(self, entry: FileEntry, path: Path) -> str | None:
        if any(place.is_symlink() for place in (path, *path.parents[: entry.path.count("/") + 1])):
            return "is a link"
        if not is_file(path):
            return "is missing"
        if (size := path.stat().st_size) != entry.bytes:
            return f"has {size:,} bytes, the manifest says {entry.bytes:,}"
        if sha256(path) != entry.sha256:
            return "does not have the sha256 of the manifest: it was changed or damaged"
        return None

    def _advice(self, found: Sequence[Damage]) -> str:
        return repair.advice(str(self), found, self.manifest.stage, self.manifest.seconds)

    def _rebuild(self) -> str:
        return repair.rebuild(str(self), self.manifest.stage, self.manifest.seconds)

    def _no_such(self, kind: str, name: str, known: Sequence[str]) -> ContractError:
        return ContractError(
            f"{self}", f"its contract has no {kind} {name!r}", f"choose from: {', '.join(known)}"
        )
