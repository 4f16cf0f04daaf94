"""Stores of groundup 0.1: refs under `names/`, and `noun` instead of `artifact_type`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from data_contracts import ArtifactError, Store
from data_contracts.store.entries import REFS, REFS_OF_0_1
from data_contracts.store.refs import RecipeRef
from data_contracts.store.remote import RemoteStore
from data_contracts.store.verification import Verified, verify_run
from tests.data_contracts import publishing
from tests.security.another_user import as_nobody, open_folder

OUTPUT = "raw_documents"


@pytest.fixture
def older(store: Store) -> Store:
    """A store as 0.1 left it: two refs at one artifact, and the recipe of a run."""
    return as_written_by_0_1(store)


def as_written_by_0_1(store: Store) -> Store:
    artifact, _ = publishing.publish(store)
    store.point("demo", OUTPUT, artifact, made_by="first")
    store.remember_recipe("demo", "tiny", ["dedup.threshold=0.7"])
    manifest = artifact.path / "manifest.json"
    _rename_key(manifest)
    digest = sha256(manifest.read_bytes()).hexdigest()
    for entry in (store.root / REFS).rglob("*.json"):
        _rename_key(entry)
        values = json.loads(entry.read_text())
        if "manifest_sha256" in values:
            entry.write_text(json.dumps(values | {"manifest_sha256": digest}))
    (store.root / REFS).rename(store.root / REFS_OF_0_1)
    return Store(store.root)


def _rename_key(path: Path) -> None:
    values = json.loads(path.read_text())
    if "artifact_type" in values:
        values["noun"] = values.pop("artifact_type")
    path.write_text(json.dumps(values))


def manifests(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in store.root.rglob("manifest.json")}


def test_an_older_store_opens_verifies_and_is_continued_without_a_manifest_being_rewritten(older):
    before = manifests(older)
    assert older.refs.runs() == ["demo"]
    artifact = older.find(f"demo/{OUTPUT}", verify=True)
    assert artifact.artifact_type == OUTPUT
    ((reference, found),) = verify_run(older, "demo")
    assert isinstance(found, Verified), (reference, found)
    assert older.refs.recipe("demo") == RecipeRef(recipe="tiny", changes=("dedup.threshold=0.7",))

    again, is_new = publishing.publish(older)
    assert (again.id, is_new) == (artifact.id, False)
    assert not older.point("demo", OUTPUT, again, made_by="second", made=False), "it does already"
    assert manifests(older) == before


def test_new_entries_go_to_refs_and_continue_the_numbers(older):
    ref = older.refs.get("demo", OUTPUT)
    assert ref is not None
    assert older.refs.set(
        "demo", OUTPUT, ref.model_copy(update={"made_by": "second", "removed": True})
    )
    older.remember_recipe("demo", "laptop", [])
    assert [entry.made_by for entry in older.refs.history("demo", OUTPUT)] == ["first", "second"]
    written = sorted(
        path.relative_to(older.root).as_posix() for path in older.root.rglob("0*.json")
    )
    assert written == [
        f"{REFS_OF_0_1}/demo/.recipe/00000001.json",
        f"{REFS_OF_0_1}/demo/{OUTPUT}/00000001.json",
        f"{REFS}/demo/.recipe/00000002.json",
        f"{REFS}/demo/{OUTPUT}/00000002.json",
    ]
    assert "artifact_type" in json.loads((older.root / written[3]).read_text())


def test_a_writer_that_is_killed_between_two_entries_leaves_a_whole_history(older):
    """Nothing is copied: with and without the first new entry the store reads the same."""
    ref = older.refs.get("demo", OUTPUT)
    assert ref is not None
    older.refs.set("demo", OUTPUT, ref.model_copy(update={"made_by": "second", "removed": True}))
    shutil.rmtree(older.root / REFS)
    again = Store(older.root)
    assert [entry.made_by for entry in again.refs.history("demo", OUTPUT)] == ["first"]


def test_a_damaged_older_entry_is_set_aside_where_it_lies(older):
    entry = older.root / REFS_OF_0_1 / "demo" / OUTPUT / "00000001.json"
    entry.write_text("{")
    with pytest.raises(ArtifactError, match=f"groundup rm demo/{OUTPUT}"):
        older.refs.get("demo", OUTPUT)
    kept = older.refs.set_aside_newest("demo", OUTPUT)
    assert kept is not None
    assert kept.startswith(f"{REFS_OF_0_1}/demo/{OUTPUT}/00000001.json.")
    assert (older.root / kept).read_text() == "{"


def test_an_older_store_that_may_not_be_written_is_read(tmp_path):
    with open_folder() as folder:
        store = as_written_by_0_1(Store(folder / "store"))
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)

        def read() -> str:
            again = Store(store.root)
            return f"{again.refs.runs()} {again.find(f'demo/{OUTPUT}').artifact_type}"

        assert as_nobody(read) == f"['demo'] {OUTPUT}"
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o755)


def test_an_older_store_in_a_bucket_is_read_and_continued(tmp_path, copy_to_bucket):
    local = as_written_by_0_1(Store(tmp_path / "local"))
    remote = copy_to_bucket(local)
    assert remote.refs.runs() == ["demo"]
    ref = remote.refs.get("demo", OUTPUT)
    assert ref is not None
    assert remote.refs.set(
        "demo", OUTPUT, ref.model_copy(update={"made_by": "second", "removed": True})
    )
    assert [entry.made_by for entry in remote.refs.history("demo", OUTPUT)] == ["first", "second"]
    assert remote.bucket.children(f"{REFS}/demo/{OUTPUT}") == ["00000002.json"]


@pytest.fixture
def copy_to_bucket(tmp_path: Path) -> Callable[[Store], RemoteStore]:
    """Refs of a local store in the memory of this process, each test with a bucket of its own."""

    def copy(local: Store) -> RemoteStore:
        remote = RemoteStore(f"memory://{tmp_path.name}", tmp_path / "cache")
        for entry in (local.root / REFS_OF_0_1).rglob("*.json"):
            remote.bucket.create(entry.relative_to(local.root).as_posix(), entry.read_bytes())
        return remote

    return copy
