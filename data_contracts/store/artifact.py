"""An immutable artifact on disk, for reading. Its manifest says what it is and lists its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts import bundles, check, upgrades
from data_contracts.contract import SHIPPED, Contract, Contracts, Version
from data_contracts.errors import ArtifactError, ContractError, how_to_rebuild, refusal
from data_contracts.files import batches, is_file, listing, read_bounded, sha256, shown
from data_contracts.store import repair
from data_contracts.store.address import ArtifactKey, StoreAddress
from data_contracts.store.manifest import MANIFEST, MAX_BYTES, FileEntry, InputRef, Manifest
from data_contracts.store.repair import Damage

__all__ = ["MANIFEST", "Artifact", "FileEntry", "InputRef", "Manifest"]

_HASHING_THREADS = 8


class Artifact:
    """A published artifact. Readers see what the manifest lists, and nothing else.

    Attributes:
        folder: Where its files are, or will be once somebody reads them.
        manifest: What is known of it.
        digest: sha256 of the manifest as it is written, in hex.
        contracts: The contracts that this release reads it with.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        digest: str,
        contracts: Contracts = SHIPPED,
        fetch: Callable[[], None] | None = None,
        store: StoreAddress | None = None,
    ):
        """See the class.

        Args:
            folder: As the attribute.
            manifest: As the attribute.
            digest: As the attribute.
            contracts: As the attribute.
            fetch: Puts the files into `folder`; it is called at the first read.
            store: The store; by default the folder that `folder` is an artifact in.
        """
        self.folder = folder
        self.manifest = manifest
        self.digest = digest
        self.contracts = contracts
        self._fetch = fetch
        self._store = store

    @classmethod
    def at(cls, path: Path, contracts: Contracts = SHIPPED) -> Artifact:
        """Open the folder of an artifact without checking its files; see `verify`.

        Raises:
            ArtifactError: There is no artifact, or its manifest cannot be read.
        """
        what = f"artifact {path}"
        key = f"{path.parent.name}/{path.name}"
        try:
            written = read_bounded(path / MANIFEST, MAX_BYTES)
            manifest = Manifest.parse(written)
        except (FileNotFoundError, NotADirectoryError):
            fix = repair.rebuild(key) if os.path.lexists(path) else how_to_rebuild()
            why = "has no manifest: it does not exist or was never finished"
            raise ArtifactError(what, why, fix) from None
        except OSError as error:
            damage = repair.of_error(MANIFEST, path / MANIFEST, error)
        except ValueError as error:  # pydantic's errors are ValueErrors
            damage = Damage(f"{MANIFEST} cannot be read: {error}", "content", path)
        else:
            return cls(path, manifest, hashlib.sha256(written).hexdigest(), contracts)
        raise ArtifactError(what, f"its {damage.what}", repair.advice(key, [damage]))

    @property
    def path(self) -> Path:
        """The folder with its files. Those of a store behind a URL are fetched now."""
        if self._fetch:
            self._fetch()
            self._fetch = None
        return self.folder

    @property
    def key(self) -> ArtifactKey:
        """What a worker needs to open this making of the artifact, on any machine."""
        store = self._store or StoreAddress(str(self.folder.absolute().parents[2]))
        return ArtifactKey(store, self.artifact_type, self.id, self.digest)

    @property
    def id(self) -> str:
        """Its id, in hex."""
        return self.manifest.id

    @property
    def artifact_type(self) -> str:
        """Its type."""
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
        """Return the number of rows of a table. Raises ContractError if there is no such table."""
        if table in self.manifest.rows:
            return self.manifest.rows[table]
        if table in self.contract.tables:
            # The contract version that it was written under had no such table.
            return sum(batch.num_rows for batch in self.batches(table))
        raise self._no_such("table", table, list(self.manifest.rows))

    def table_paths(self, table: str) -> list[Path]:
        """Return the Parquet files of a table, in shard order."""
        paths = []
        for entry in self.manifest.files:
            folder, _, name = entry.path.partition("/")
            if folder == table and name.endswith(".parquet"):
                paths.append(self.path / entry.path)
        return paths

    def batches(
        self, table: str, columns: Sequence[str] | None = None, batch_size: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of `table` in the order they were written, as the current contract has them.

        Older versions are migrated; columns that a newer minor version added are left out. A batch
        has fewer rows than `batch_size` if it would take more than 64 MB.

        Args:
            table: The table.
            columns: The columns to read, in this order; None for all.
            batch_size: Rows of a batch.

        Raises:
            ContractError: There is no such table or column.
        """
        wanted = self._schema(table, columns)
        is_older = self.version < self.contract.version
        stored = upgrades.stored_as(self.contracts, self.artifact_type, table, self.version)
        for path in self.table_paths(stored):
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                lost = set(wanted.names) - set(file.schema_arrow.names)
                if lost and not is_older:
                    raise ContractError(
                        f"{self} {stored}/{path.name}",
                        f"has no columns {sorted(lost)}",
                        self._rebuild(),
                    )
                for batch in batches(file, batch_size, None if is_older else wanted.names):
                    if is_older:
                        batch = upgrades.upgrade(
                            self.contracts, self.artifact_type, table, batch, self.version
                        )
                    arrays = list(map(batch.column, wanted.names))
                    yield pa.RecordBatch.from_arrays(arrays, schema=wanted)

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the whole table in memory.

        Args:
            table: The table.
            columns: The columns to read, in this order; None for all.
        """
        return pa.Table.from_batches(self.batches(table, columns), self._schema(table, columns))

    def files(self, name: str) -> list[Path]:
        """Return all files that fall under the file rule `name` of the contract.

        Raises:
            ContractError: The contract has no such rule.
        """
        for rule in self.contract.files:
            if rule.name == name:
                listed = [entry.path for entry in self.manifest.files]
                return [self.path / path for path in filter(rule.matches, listed)]
        raise self._no_such("file", name, [rule.name for rule in self.contract.files])

    def file(self, name: str) -> Path:
        """Return the one file that falls under the file rule `name`.

        Raises:
            ContractError: The contract has no such rule.
            ArtifactError: There is no such file, or more than one.
        """
        found = self.files(name)
        if len(found) != 1:
            why = f"{len(found)} files fall under {name!r}, wanted one"
            raise ArtifactError(f"{self}", why, self._rebuild())
        return found[0]

    def verify(self) -> None:
        """Compare every file with the manifest byte for byte, and the id with what it is made of.

        Raises:
            ArtifactError: A file is missing, extra, cut short, changed or a link, or the id is
                wrong. The message names each.
        """
        found = self._strays()
        computed = self.manifest.identity.id
        if computed != self.id:
            why = (
                "its id is not that of the stage, settings and inputs in its manifest, "
                f"which is {computed}"
            )
            found.append(Damage(why, "content", self.path))
        threads = min(_HASHING_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:  # hashing releases the interpreter lock
            found += filter(None, pool.map(self._damage, self.manifest.files))
        if found:
            why = "; ".join(damage.what for damage in found)
            raise ArtifactError(f"artifact {self}", why, self._advice(found))

    def check_files(self) -> None:
        """Check the files against the contract, as at publish, if it has rules for files.

        Tables are not read.

        Raises:
            ContractError: A file is missing, allowed by no rule, or not what its rule says.
        """
        contract = self.contract
        if not contract.files or self.version.major != contract.version.major:
            return
        if self.version > contract.version:  # it may have files that this release does not know
            return
        problems = bundles.problems(contract, self.path, ignore=MANIFEST, reads_tables=False)
        if problems:
            what = f"artifact {self} (contract {contract.version})"
            raise refusal(what, problems, self._rebuild())

    def check(self) -> int:
        """Check the content against its contract, as at publish, and its rows against the manifest.

        `verify` shows that nothing changed since then. A newer minor version may have wider bounds,
        so of such an artifact only the columns that this release reads are checked.

        Returns:
            The number of rows.

        Raises:
            ContractError: The content breaks the contract. The message lists the violations.
        """
        contract = self._contract_written_under()
        is_newer = self.version > contract.version
        problems = []
        if not is_newer:
            problems = bundles.problems(contract, self.path, ignore=MANIFEST)
        rows = {}
        for table in contract.tables:
            rows[table], violations = check.table(contract, table, self.path, is_newer)
            problems += violations
        if not problems:
            problems = self._miscounted(rows, is_newer)
        if problems:
            what = f"artifact {self} (contract {contract.version})"
            raise refusal(what, problems, self._rebuild())
        return sum(rows.values())

    def _contract_written_under(self) -> Contract:
        """Return the contract to check the content against: the newest that is not newer than it.

        Raises:
            ContractError: This release knows no contract of its major version.
        """
        found = None
        for contract in self.contracts.versions(self.artifact_type):
            if contract.version <= self.version:
                found = contract
        if found is None or found.version.major != self.version.major:
            why = f"was written under contract {self.version}, which this release does not know"
            raise ContractError(f"artifact {self}", why, "install another groundup")
        return found

    def require(self, accepts: int) -> str | None:
        """Refuse a contract version that a reader of major version `accepts` cannot read.

        Returns:
            A note if the reader sees less than the artifact holds.

        Raises:
            ContractError: The major version is newer, or it is older and no migration exists.
        """
        what = f"artifact {self}"
        if self.version.major > accepts:
            why = (
                f"was written under contract {self.version}; "
                f"this release reads {self.artifact_type} up to {accepts}.x"
            )
            raise ContractError(what, why, "install a newer groundup")
        current = self.contract.version
        if self.version.major < accepts and not upgrades.reaches(
            self.contracts, self.artifact_type, self.version, current
        ):
            why = f"was written under contract {self.version} and no migration leads to {accepts}.x"
            raise ContractError(what, why, self._rebuild())
        if self.version > current:
            return (
                f"{self} was written under contract {self.version}, newer than {current}: "
                "columns that it added are left out"
            )
        return None

    def _schema(self, table: str, columns: Sequence[str] | None) -> pa.Schema:
        if table not in self.contract.tables:
            raise self._no_such("table", table, list(self.contract.tables))
        schema = self.contract.arrow_schema(table).remove_metadata()
        if columns is None:
            return schema
        for name in columns:
            if name not in schema.names:
                raise self._no_such("column", f"{table}.{name}", schema.names)
        return pa.schema(list(map(schema.field, columns)))

    def _miscounted(self, rows: dict[str, int], is_newer: bool) -> list[str]:
        """Return the tables that the manifest gives another number of rows.

        A newer minor version may have more tables.
        """
        written = self.manifest.rows
        wrong = []
        for table, count in rows.items():
            if written.get(table) != count:
                stated = written.get(table, "nothing")
                wrong.append(f"{table} has {count:,} rows, the manifest says {stated}")
        unknown = [] if is_newer else [table for table in written if table not in rows]
        wrong += [f"the manifest counts rows of {table}, which is no table" for table in unknown]
        return wrong

    def _strays(self) -> list[Damage]:
        """Return files that the manifest does not list, or the error that keeps us from looking."""
        listed = {MANIFEST, *(entry.path for entry in self.manifest.files)}
        folder = self.path
        try:
            names = listing(folder)
        except OSError as error:
            return [repair.of_error("its folder", folder, error)]
        found = []
        for name in names:
            if name not in listed:
                what = f"{shown(name)} is not in the manifest"
                found.append(Damage(what, "stray", folder / name))
        return found

    def _damage(self, entry: FileEntry) -> Damage | None:
        path = self.path / entry.path
        try:
            difference = self._difference(entry, path)
        except OSError as error:
            return repair.of_error(entry.path, path, error)
        return Damage(f"{entry.path} {difference}", "content", path) if difference else None

    def _difference(self, entry: FileEntry, path: Path) -> str | None:
        """Return how a file differs from its entry in the manifest, if it does."""
        folders = path.parents[: entry.path.count("/") + 1]
        if any(step.is_symlink() for step in (path, *folders)):
            return "is a link"
        if not is_file(path):
            return "is missing"
        size = path.stat().st_size
        if size != entry.bytes:
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
