"""Old artifacts under new contracts, and new ones under old: read, read with a note, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_contracts import ContractError, Contracts, Store
from data_contracts.contract import Version
from tests.data_contracts import publishing
from tests.data_contracts.made_up import ROW, SIZE, columns, release

NOTE = {"name": "note", "logicalType": "string", "physicalType": "string", "required": False}


def with_note(contract):
    columns(contract).insert(0, NOTE)


def in_bytes(contract):
    """Version 2: `size` became `bytes`, in another unit, and there is a table more."""
    with_note(contract)
    columns(contract)[SIZE + 1] = {
        "name": "bytes",
        "logicalType": "integer",
        "physicalType": "int64",
        "required": True,
    }
    contract["schema"].append(
        contract["schema"][0] | {"name": "more", "physicalName": "more/*.parquet"}
    )


def to_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    assert "note" in batch.schema.names, (
        "a migration is given the newest minor version of the old major"
    )
    size = pc.multiply(batch["size"].cast(pa.int64()), 1024)
    return pa.record_batch(
        {"bytes": size} | {name: batch[name] for name in batch.schema.names if name != "size"}
    )


STEPS = {("pages", "rows", 1): to_bytes}


def old_artifact(tmp_path: Path) -> Store:
    """A store that a release published into which knew 1.0.0 only."""
    release(tmp_path / "1.0")
    store = Store(tmp_path / "store", Contracts(tmp_path / "1.0", {}))

    def make(draft):
        for shard in range(2):
            with draft.writer("rows", shard) as writer:
                writer.write([ROW | {"id": f"{shard}-{n}", "size": n} for n in range(3)])
        return {}

    artifact, _ = store.publish(
        "pages",
        publishing.identity("pages", {}, store.contracts.current("pages").version),
        {},
        {},
        make,
    )
    store.point("old", "pages", artifact, "run-1")
    return store


def read_by(store: Store, root: Path, steps=None):
    return Store(store.root, Contracts(root, steps or {})).find("old/pages", verify=True)


def test_a_column_that_a_minor_version_added_is_null_in_an_older_artifact(tmp_path):
    store = old_artifact(tmp_path)
    release(tmp_path / "new")
    release(tmp_path / "new", "1.1.0", with_note)
    found = read_by(store, tmp_path / "new")
    assert found.require(1) is None
    assert str(found.contract.version) == "1.1.0"
    assert found.version == Version(1, 0, 0)
    table = found.read("rows")
    assert table.column_names == ["note", "id", "size", "kind", "tags"]
    assert table["note"].null_count == 6
    assert table["size"].to_pylist() == [0, 1, 2, 0, 1, 2]
    assert found.read("rows", ["tags", "note"]).column_names == ["tags", "note"]
    assert found.check() == 6


def test_a_major_version_is_read_through_its_registered_migration(tmp_path):
    store = old_artifact(tmp_path)
    for version, change in (("1.0.0", lambda c: None), ("1.1.0", with_note), ("2.0.0", in_bytes)):
        release(tmp_path / "new", version, change)
    found = read_by(store, tmp_path / "new", STEPS)
    assert found.require(2) is None
    assert found.rows("more") == found.read("more").num_rows == 0
    table = found.read("rows")
    assert table.schema == found.contract.arrow_schema("rows").remove_metadata()
    assert table["bytes"].to_pylist() == [0, 1024, 2048] * 2
    assert found.read("rows", ["bytes"]).column_names == ["bytes"]
    assert found.check() == 6


def test_a_major_version_without_migration_is_refused(tmp_path):
    store = old_artifact(tmp_path)
    release(tmp_path / "new")
    release(tmp_path / "new", "2.0.0", in_bytes)
    found = read_by(store, tmp_path / "new")
    with pytest.raises(
        ContractError, match=r"was written under contract 1\.0\.0 and no migration leads to 2\.x"
    ):
        found.require(2)
    with pytest.raises(ContractError, match=r"no migration from 1\.x to 2\.x"):
        found.read("rows")


def test_a_migration_that_forgets_a_column_is_reported(tmp_path):
    store = old_artifact(tmp_path)
    release(tmp_path / "new")
    release(tmp_path / "new", "2.0.0", in_bytes)
    found = read_by(store, tmp_path / "new", {("pages", "rows", 1): lambda batch: batch})
    with pytest.raises(
        ContractError, match=r"migration of pages.rows to 2\.0\.0: bytes is not there as int64"
    ):
        found.read("rows")


def newer_artifact(tmp_path: Path, version: str, change, **more: object) -> Store:
    store = old_artifact(tmp_path)
    release(tmp_path / "new", version, change)
    newer = Store(store.root, Contracts(tmp_path / "new", {}))

    def make(draft):
        row = (
            dict(ROW)
            if "size" in draft.contract.arrow_schema("rows").names
            else {"bytes": 1, **{k: v for k, v in ROW.items() if k != "size"}}
        )
        draft.write("rows", [row | {"note": "new"} | more])
        return {}

    artifact, _ = newer.publish(
        "pages",
        publishing.identity("pages", {"newer": True}, newer.contracts.current("pages").version),
        {},
        {},
        make,
    )
    newer.point("new", "pages", artifact, "run-2")
    return store


def test_a_newer_minor_version_is_read_without_its_new_columns_and_with_a_note(tmp_path):
    store = newer_artifact(tmp_path, "1.1.0", with_note)
    found = store.find("new/pages", verify=True)
    assert (
        found.require(1) == f"{found} was written under contract 1.1.0, newer than 1.0.0: "
        "columns that it added are left out"
    )
    assert found.read("rows").to_pylist() == [ROW]
    assert found.check() == 1


def test_what_a_newer_minor_version_allows_is_no_fault_of_its_artifacts(tmp_path):
    def with_more_sizes(contract):
        columns(contract)[SIZE]["logicalTypeOptions"]["maximum"] = 1000
        with_note(contract)

    assert (
        newer_artifact(tmp_path, "1.1.0", with_more_sizes, size=999)
        .find("new/pages", verify=True)
        .check()
        == 1
    )


def test_a_newer_major_version_is_refused(tmp_path):
    store = newer_artifact(tmp_path, "2.0.0", in_bytes)
    found = store.find("new/pages", verify=True)
    with pytest.raises(
        ContractError,
        match=r"this release reads pages up to 1\.x\n  To repair: install a newer groundup",
    ):
        found.require(1)
    with pytest.raises(ContractError, match="which this release does not know"):
        found.check()
    with pytest.raises(ContractError, match=r"has no columns \['size'\]"):
        found.read("rows")


def test_versions_are_ordered_by_number(tmp_path):
    for version in ("1.0.0", "1.2.0", "1.10.0", "2.0.0"):
        release(tmp_path, version)
    assert [str(c.version) for c in Contracts(tmp_path).versions("pages")] == [
        "1.0.0",
        "1.2.0",
        "1.10.0",
        "2.0.0",
    ]
    assert Contracts(tmp_path).artifact_types == ["pages"]
    with pytest.raises(ContractError, match="choose one of: pages"):
        Contracts(tmp_path).current("sheets")
    shutil.rmtree(tmp_path / "pages")


@pytest.mark.parametrize(
    "text", ["", "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.0-rc1", "1.٠.0", "1.0.0\n"]
)
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ContractError, match=r"MAJOR\.MINOR\.PATCH"):
        Version.parse(text)
