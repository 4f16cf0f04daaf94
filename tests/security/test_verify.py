"""`groundup verify` accepts artifacts that are as they were published, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from data_contracts import ArtifactError, ConfigError, ContractError, GroundupError, Store
from data_contracts.store.index import StoreIndex
from data_contracts.store.manifest import FileEntry, InputRef, Manifest
from data_contracts.store.verification import Verified, seal, verify, verify_run
from flows.cli import artifact_commands
from tests.security import stores
from tests.security.stores import CLEAN, RAW, Entries, manifest_key

Path_ = tuple[Any, ...]


@pytest.fixture(params=["folder", "bucket"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    store = Store(tmp_path / "store") if request.param == "folder" else stores.in_bucket(tmp_path)
    stores.fill(store)
    return store


def verified(store: Store, reference: str) -> Verified:
    return verify(store.open(*store.resolve(reference), verify=False), StoreIndex.read(store))


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path to every value in a JSON document, including lists and objects."""
    if path:
        yield path
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in inside:
        yield from leaves(child, (*path, key))


def changed(value: Any) -> Any:
    """Another value of the same kind, which matches the patterns of a manifest if possible."""
    if isinstance(value, bool) or value is None:
        return "2026-01-31" if value is None else not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return value | {"added": 1}
    if isinstance(value, list):
        return [*value, *value[:1]] or [1]
    if not value:
        return "x"
    last = {"0": "1"}.get(value[-1], "0")
    return value[:-1] + last


def put(document: Any, path: Path_, value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def remove(document: Any, path: Path_) -> None:
    for key in path[:-1]:
        document = document[key]
    del document[path[-1]]


def test_a_manifest_in_which_any_value_was_changed_added_or_taken_away_is_found(
    filled: Store,
) -> None:
    clean = filled.find(f"demo/{CLEAN}")
    entries, key = Entries(filled), manifest_key(clean)
    written = entries.read(key)
    ways = list(leaves(json.loads(written)))
    seen = {way[0] for way in ways}
    assert seen == set(Manifest.model_fields), (
        "a field of which the manifest has no value is not tried"
    )
    assert {way[2] for way in ways if way[0] == "files" and len(way) == 3} == set(
        FileEntry.model_fields
    )
    assert {way[2] for way in ways if way[0] == "inputs" and len(way) == 3} == set(
        InputRef.model_fields
    )
    missed = []
    for way in ways:
        for name in ("changed", "gone"):
            document = json.loads(written)
            if name == "changed":
                before = document
                for step in way:
                    before = before[step]
                put(document, way, changed(before))
            else:
                remove(document, way)
            entries.write(key, json.dumps(document, indent=1).encode())
            try:
                verified(filled, f"{CLEAN}/{clean.id}")
            except GroundupError:
                continue
            missed.append((name, way))
    assert missed == []
    entries.write(key, json.dumps(json.loads(written) | {"more": 1}).encode())
    with pytest.raises(ArtifactError, match="it was changed since"):
        verified(filled, f"demo/{CLEAN}")
    entries.write(key, written)
    assert verified(filled, f"demo/{CLEAN}").seal == "sealed"


def test_a_manifest_that_was_changed_is_not_used_either(filled: Store) -> None:
    clean = filled.find(f"demo/{CLEAN}")
    Entries(filled).change_json(
        manifest_key(clean), lambda manifest: manifest["facts"].update(rejected={})
    )
    with pytest.raises(
        ArtifactError,
        match=f"is not the one that demo/{CLEAN} was pointed at: it was changed since",
    ):
        filled.find(f"demo/{CLEAN}")


@pytest.mark.parametrize("digits", [24, 8])
@pytest.mark.parametrize("typed", [True, False])
def test_a_manifest_that_was_changed_is_not_used_by_its_id_either(
    filled: Store, digits: int, typed: bool
) -> None:
    raw, clean = filled.find(f"demo/{RAW}"), filled.find(f"demo/{CLEAN}")
    references = [
        f"{one.artifact_type}/{one.id[:digits]}" if typed else one.id[:digits]
        for one in (raw, clean)
    ]
    assert [filled.find(reference).id for reference in references] == [raw.id, clean.id]
    for artifact, reference in zip((raw, clean), references, strict=True):
        Entries(filled).change_json(
            manifest_key(artifact), lambda manifest: manifest["facts"].update(added=1)
        )
        with pytest.raises(ArtifactError, match="it was changed since"):
            filled.find(reference)


def test_what_no_ref_points_at_is_compared_with_what_was_made_from_it(filled: Store) -> None:
    other = stores.publish_raw(filled, "other")
    assert filled.find(other.id).digest == other.digest
    clean = stores.publish_clean(filled, other)
    assert filled.find(other.id).digest == other.digest
    Entries(filled).change_json(
        manifest_key(other), lambda manifest: manifest["facts"].update(added=1)
    )
    with pytest.raises(ArtifactError, match=f"is not the one that {clean} was pointed at"):
        filled.find(other.id)
    with pytest.raises(ArtifactError, match=f"is not the one that {clean} was pointed at"):
        filled.point("late", RAW, filled.open(RAW, other.id, verify=False), "test", made=False)
    assert filled.refs.get("late", RAW) is None


def test_a_ref_that_holds_nothing_does_not_hide_what_others_hold(filled: Store) -> None:
    raw = filled.find(f"demo/{RAW}")
    Entries(filled).change_json(stores.ref_key(RAW), lambda ref: ref.update(manifest_sha256=None))
    Entries(filled).change_json(
        manifest_key(raw), lambda manifest: manifest["facts"].update(added=1)
    )
    with pytest.raises(ArtifactError, match="it was changed since"):
        filled.find(f"demo/{RAW}")


def test_what_was_made_again_is_used_by_its_id(tmp_path: Path) -> None:
    from data_contracts.store import removal

    store = Store(tmp_path / "store")
    stores.fill(store)
    removal.remove(store, removal.plan(store, f"demo/{RAW}"))
    again = stores.publish_raw(store)
    Entries(store).change_json(
        manifest_key(again), lambda manifest: manifest.update(finished="2026-01-31")
    )
    assert store.find(again.id).id == again.id


def test_a_ref_that_agrees_costs_no_look_at_the_others(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "check_seal", lambda *_: pytest.fail("it looked"))
    assert filled.find(f"demo/{RAW}").artifact_type == RAW


def test_a_rerun_that_finds_everything_up_to_date_does_not_seal_a_change(filled: Store) -> None:
    raw = filled.find(f"demo/{RAW}")
    Entries(filled).change_json(
        manifest_key(raw), lambda manifest: manifest["facts"].update(pages=6)
    )
    again = stores.publish_raw(filled)
    for run in ("demo", "other"):
        with pytest.raises(ArtifactError, match=f"is not the one that demo/{RAW} was pointed at"):
            filled.point(run, RAW, again, "test", made=False)


@pytest.mark.parametrize(
    "field", ["config", "stage", "stage_version", "as_of", "inputs", "contract"]
)
def test_without_any_seal_what_makes_the_id_is_computed_again(filled: Store, field: str) -> None:
    stores.forget_seals(filled)
    clean = filled.find(f"demo/{CLEAN}")
    assert verified(filled, f"demo/{CLEAN}").seal == "unsealed"
    values = {
        "inputs": {RAW: {"artifact_type": RAW, "id": "0" * 24}},
        "contract": "1.0.9",
        "as_of": "2026-01-31",
        "config": {"least": 4},
    }

    def change(manifest: dict[str, Any]) -> None:
        manifest[field] = values.get(field, changed(manifest[field]))

    Entries(filled).change_json(manifest_key(clean), change)
    with pytest.raises(
        ArtifactError, match="its id is not that of the stage, settings and inputs in its manifest"
    ):
        verified(filled, f"{CLEAN}/{clean.id}")


@pytest.mark.parametrize(
    "rows",
    [{"documents": 5, "rejects": 1}, {"documents": 4}, {"documents": 4, "rejects": 1, "others": 0}],
)
def test_without_any_seal_rows_are_counted(filled: Store, rows: dict[str, int]) -> None:
    stores.forget_seals(filled)
    clean = filled.find(f"demo/{CLEAN}")
    assert verified(filled, f"demo/{CLEAN}").rows == 5
    Entries(filled).change_json(manifest_key(clean), lambda manifest: manifest.update(rows=rows))
    with pytest.raises(ContractError, match=r"the manifest (says|counts)"):
        verified(filled, f"demo/{CLEAN}")


def test_where_no_ref_points_the_manifest_downstream_tells(filled: Store) -> None:
    other = stores.publish_raw(filled, "other")
    clean = stores.publish_clean(filled, other)
    assert verified(filled, other.id).seal == "sealed"
    assert verified(filled, clean.id).seal == "unsealed"
    Entries(filled).change_json(
        manifest_key(other), lambda manifest: manifest["settings"].update(name="b")
    )
    with pytest.raises(ArtifactError, match=f"is not the one that {clean} was pointed at"):
        verified(filled, other.id)
    with pytest.raises(
        ArtifactError, match=f"the manifest of its input {other} .* was changed since"
    ):
        verified(filled, clean.id)


def test_an_artifact_may_be_made_again_and_what_was_made_from_the_first_stays_sound(
    tmp_path: Path,
) -> None:
    from data_contracts.store import removal

    store = Store(tmp_path / "store")
    stores.fill(store)
    removal.remove(store, removal.plan(store, f"demo/{RAW}"))
    entries = Entries(store)
    again = stores.publish_raw(store)  # under no name
    entries.change_json(
        manifest_key(again), lambda manifest: manifest.update(started="2026-01-31T00:00:00+00:00")
    )
    again = store.open(RAW, again.id)
    unsealed = verified(store, f"demo/{RAW}")
    assert unsealed.seal == "unsealed"
    assert f"groundup seal demo/{RAW}" in unsealed.notes[0]
    assert verified(store, f"demo/{CLEAN}").notes == (
        f"its input {again} ({RAW}) was made again since",
    )
    assert store.point("demo", RAW, again, "test", made=False)
    assert verified(store, f"demo/{RAW}").seal == "sealed"


def test_refs_of_an_older_release_are_unsealed_until_a_command_seals_them(filled: Store) -> None:
    stores.forget_seals(filled)
    assert not filled.point("demo", RAW, filled.find(f"demo/{RAW}"), "test", made=False)
    assert verified(filled, f"demo/{RAW}").seal == "unsealed"
    index = StoreIndex.read(filled)
    assert [seal(filled, "demo", output, index) for output in (RAW, CLEAN)] == [True, True]
    assert not seal(filled, "demo", RAW, index)
    assert {
        found.seal for _, found in verify_run(filled, "demo") if isinstance(found, Verified)
    } == {"sealed"}
    raw = filled.find(f"demo/{RAW}")
    Entries(filled).change_json(
        manifest_key(raw), lambda manifest: manifest["settings"].update(name="b")
    )
    with pytest.raises(ArtifactError, match="it was changed since"):
        verified(filled, f"demo/{RAW}")
    with pytest.raises(ArtifactError, match="it was changed since"):
        seal(filled, "demo", RAW, StoreIndex.read(filled))


def test_what_is_damaged_is_not_sealed(filled: Store) -> None:
    stores.forget_seals(filled)
    raw = filled.find(f"demo/{RAW}")
    Entries(filled).change_json(
        manifest_key(raw), lambda manifest: manifest["rows"].update(documents=7)
    )
    with pytest.raises(ContractError, match="the manifest says 7"):
        seal(filled, "demo", RAW, StoreIndex.read(filled))


def test_a_run_is_verified_whole_though_one_artifact_is_wrong(
    filled: Store, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(artifact_commands, "open_store", lambda: filled)
    artifact_commands.verify("demo")
    assert "demo: 2 artifacts, 0 wrong" in capsys.readouterr().out
    clean = filled.find(f"demo/{CLEAN}")
    Entries(filled).change_json(manifest_key(clean), lambda manifest: manifest.update(groundup="9"))
    with pytest.raises(typer.Exit) as end:
        artifact_commands.verify("demo", json_=True)
    assert end.value.exit_code == 2
    rows = {
        row.get("reference", row["artifact"]): row for row in json.loads(capsys.readouterr().out)
    }
    assert {reference: row["ok"] for reference, row in rows.items()} == {
        f"demo/{RAW}": True,
        f"demo/{CLEAN}": False,
    }
    assert "groundup rm" in rows[f"demo/{CLEAN}"]["fix"]
    with pytest.raises(ConfigError, match="does not exist"):
        list(verify_run(filled, "nobody"))


def test_what_is_upstream_of_a_run_belongs_to_it(filled: Store) -> None:
    other = stores.publish_raw(filled, "other")
    filled.point("later", CLEAN, stores.publish_clean(filled, other), "test")
    assert [reference for reference, _ in verify_run(filled, "later")] == [
        f"later/{CLEAN}",
        str(other),
    ]


def test_a_copied_store_is_as_sound_as_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    stores.fill(store)
    shutil.copytree(store.root, tmp_path / "copy", symlinks=True)
    found = [one for _, one in verify_run(Store(tmp_path / "copy"), "demo")]
    assert [one.seal for one in found if isinstance(one, Verified)] == ["sealed", "sealed"]


@pytest.mark.parametrize("kind", ["pipe", "zero", "link", "folder"])
def test_a_manifest_or_ref_that_is_no_file_is_refused_without_opening_it(
    tmp_path: Path, kind: str
) -> None:
    store = Store(tmp_path / "store")
    stores.fill(store)
    clean = store.find(f"demo/{CLEAN}")
    for path in (clean.path / "manifest.json", store.root / stores.ref_key(CLEAN)):
        kept = path.rename(tmp_path / "kept")
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "zero" else kept)
        with pytest.raises(ArtifactError, match="cannot be read"):
            store.open(*store.resolve(f"demo/{CLEAN}"))
        path.rmdir() if kind == "folder" else path.unlink()
        kept.rename(path)
    assert verified(store, f"demo/{CLEAN}").seal == "sealed"
