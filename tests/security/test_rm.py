"""`groundup rm` says what depends on an artifact, and deletes nothing for good unless asked to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts import ArtifactError, ConfigError, Store
from data_contracts.store import removal
from data_contracts.store.index import StoreIndex
from data_contracts.store.verification import verify
from flows.cli import artifact_commands
from tests.security import stores
from tests.security.stores import CLEAN, RAW, Entries, ref_key

Rm = Callable[..., Any]


@pytest.fixture(params=["folder", "bucket"])
def filled(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    store = Store(tmp_path / "store") if request.param == "folder" else stores.in_bucket(tmp_path)
    stores.fill(store)
    monkeypatch.setattr(artifact_commands, "open_store", lambda: store)
    return store


@pytest.fixture
def rm(filled: Store, capsys: pytest.CaptureFixture[str]) -> Rm:
    """Run the command and return its JSON output."""

    def go(artifact: str | None = None, **options: bool) -> Any:
        capsys.readouterr()
        artifact_commands.rm(artifact, json_=True, **options)
        return json.loads(capsys.readouterr().out)

    return go


def seal_of(store: Store, reference: str) -> str:
    return verify(store.find(reference), StoreIndex.read(store)).seal


def test_what_is_removed_is_gone_from_the_store_kept_aside_and_comes_back_as_it_was(
    filled: Store, rm: Rm
) -> None:
    clean = filled.find(f"demo/{CLEAN}")
    answer = rm(f"demo/{CLEAN}")
    assert answer["removed"] == str(clean)
    assert not filled.has(CLEAN, clean.id)
    assert [key[0] for key in filled.ids()] == [RAW]
    with pytest.raises(ArtifactError):
        filled.find(f"demo/{CLEAN}")
    (kept,) = [row["removed"] for row in rm(list_=True)]
    assert answer["kept"].endswith(f"removed/{kept}")
    rm(str(clean), restore=True)
    assert filled.find(f"demo/{CLEAN}").digest == clean.digest
    assert seal_of(filled, f"demo/{CLEAN}") == "sealed"
    assert rm(list_=True) == []
    Entries(filled).change_json(
        stores.manifest_key(clean), lambda manifest: manifest["facts"].update(rejected={})
    )
    with pytest.raises(ArtifactError, match="it was changed since"):
        filled.find(f"demo/{CLEAN}")


def test_what_depends_on_it_is_named_and_it_goes_only_when_that_is_accepted(
    filled: Store, rm: Rm, capsys: Any
) -> None:
    raw, clean = filled.find(f"demo/{RAW}"), filled.find(f"demo/{CLEAN}")
    filled.point("other", RAW, raw, "test")
    with pytest.raises(ConfigError, match="1 artifact was made from it") as error:
        artifact_commands.rm(raw.id)
    assert "--yes" in error.value.fix
    stderr = capsys.readouterr().err
    assert f"refs: demo/{RAW}, other/{RAW}" in stderr
    assert f"made from it: {clean}" in stderr
    assert filled.has(RAW, raw.id)
    rm(raw.id, yes=True)
    assert not filled.has(RAW, raw.id)
    assert verify(filled.find(f"demo/{CLEAN}"), StoreIndex.read(filled)).notes == (
        f"its input {raw} ({RAW}) is no longer in the store",
    )


def test_what_cannot_be_read_is_named_among_what_may_depend_on_it(filled: Store) -> None:
    clean = filled.find(f"demo/{CLEAN}")
    Entries(filled).write(stores.manifest_key(clean), b"{")
    Entries(filled).write(ref_key(CLEAN), b"{")
    planned = removal.plan(filled, f"demo/{RAW}")
    assert planned.refs == (f"demo/{RAW}",)
    assert planned.unknown == (f"demo/{CLEAN}", str(clean))


def test_only_what_was_removed_is_ever_deleted_and_only_when_asked(filled: Store, rm: Rm) -> None:
    clean = filled.find(f"demo/{CLEAN}")
    rm(f"demo/{CLEAN}")
    with pytest.raises(ConfigError, match="would delete 1 removed artifact for good"):
        rm(empty=True)
    assert len(rm(list_=True)) == 1
    assert len(rm(empty=True, yes=True)) == 1
    assert rm(list_=True) == []
    with pytest.raises(ConfigError, match="is not kept here"):
        rm(str(clean), restore=True)
    assert seal_of(filled, f"demo/{RAW}") == "sealed"


def test_what_comes_back_does_not_take_the_stead_of_another_making(filled: Store, rm: Rm) -> None:
    raw = filled.find(f"demo/{RAW}")
    rm(raw.id, yes=True)
    stores.publish_raw(filled)
    with pytest.raises(ArtifactError, match="is in the store"):
        rm(str(raw), restore=True)
    assert len(rm(list_=True)) == 1


def test_an_artifact_that_is_made_again_in_another_ones_stead_is_not_called_changed(
    filled: Store, rm: Rm
) -> None:
    raw = filled.find(f"demo/{RAW}")
    rm(raw.id, yes=True)
    again = stores.publish_raw(filled)
    filled.point("demo", RAW, again, "test")
    assert seal_of(filled, f"demo/{RAW}") == "sealed"
    assert seal_of(filled, f"demo/{CLEAN}") == "sealed"
    assert [entry.made_by for entry in filled.refs.history("demo", RAW)] == [
        "test",
        "groundup rm",
        "test",
    ]


def test_a_ref_that_cannot_be_read_is_kept_aside_and_points_at_what_it_did_before(
    filled: Store, rm: Rm
) -> None:
    entries = Entries(filled)
    entries.write(ref_key(RAW, 2), b"{broken")
    with pytest.raises(ArtifactError, match="its entry 2 cannot be read") as error:
        filled.find(f"demo/{RAW}")
    assert f"groundup rm demo/{RAW}" in error.value.fix
    answer = rm(f"demo/{RAW}")
    assert entries.read(answer["entry_kept_as"]) == b"{broken"
    assert seal_of(filled, f"demo/{RAW}") == "sealed"
    assert filled.has(*filled.resolve(f"demo/{RAW}")), "the artifact itself stays"


def test_the_only_entry_of_a_ref_is_not_promised_an_older_one(filled: Store, rm: Rm) -> None:
    entries = Entries(filled)
    entries.write(ref_key(RAW), b"{broken")
    with pytest.raises(ArtifactError, match="its entry 1 cannot be read") as error:
        filled.find(f"demo/{RAW}")
    assert "pointed at before" not in error.value.fix
    assert f"run demo is without {RAW} until a stage with --name demo makes it" in error.value.fix
    rm(f"demo/{RAW}")
    assert RAW not in filled.refs.outputs("demo")


def test_who_removes_what_is_not_there_is_told_what_makes_it_or_brings_it_back(
    filled: Store, rm: Rm
) -> None:
    clean = filled.find(f"demo/{CLEAN}")
    rm(f"demo/{CLEAN}")
    for reference in (f"demo/{CLEAN}", str(clean)):
        with pytest.raises(ArtifactError, match="was removed before") as error:
            rm(reference, yes=True)
        assert error.value.fix == f"to bring it back: groundup rm --restore {clean}"
    rm(empty=True, yes=True)
    before = filled.refs.history("demo", CLEAN)
    for reference in (f"demo/{CLEAN}", str(clean)):
        with pytest.raises(ArtifactError, match=f"demo/{CLEAN} still points at it") as error:
            rm(reference, yes=True)
        assert error.value.fix == "to make it again: groundup stage test --name demo"
    assert filled.refs.history("demo", CLEAN) == before
    with pytest.raises(ArtifactError, match="is not in") as error:
        rm(f"{CLEAN}/{'0' * 24}", yes=True)
    assert error.value.fix == "see what there is: groundup ls"


@pytest.mark.parametrize("reference", ["../../etc", "/etc", "nope", "nope/", "", "x" * 300])
@pytest.mark.parametrize("command", ["verify", "rm"])
def test_what_is_neither_a_run_nor_an_artifact_is_called_so(
    filled: Store, reference: str, command: str
) -> None:
    with pytest.raises(
        ConfigError, match=f"is neither a run nor an artifact of {filled.location}"
    ) as error:
        getattr(artifact_commands, command)(reference)
    assert error.value.fix == "choose from: demo"


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("demo/nope", "the run demo has no nope"),
        ("demo/", "is neither a run nor"),
        ("demo/../x", "is neither a run nor"),
    ],
)
def test_what_a_run_has_not_is_told_with_what_it_has(
    filled: Store, reference: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        artifact_commands.verify(reference)
    assert error.value.fix == f"choose from: demo/{CLEAN}, demo/{RAW}"


@pytest.mark.parametrize("ref", ["../etc", "demo/nope", "demo/../x", "nope/x"])
def test_a_ref_that_is_not_there_is_not_sealed_and_not_called_a_bad_name(
    filled: Store, ref: str
) -> None:
    with pytest.raises(ConfigError, match="does not exist") as error:
        artifact_commands.seal(ref)
    assert error.value.what == f"ref {ref}"


@pytest.mark.parametrize("name", ["nope", "..", ""])
def test_who_names_a_run_that_is_not_there_is_told_of_runs(
    filled: Store, name: str, monkeypatch: Any
) -> None:
    from flows.cli import commands as cli
    from flows.cli import talk

    def chat(model: str) -> None:
        talk.find(filled, model)

    monkeypatch.setattr(cli, "open_store", lambda: filled)
    for command in (cli.ls, artifact_commands.seal, chat):
        with pytest.raises(ConfigError, match="does not exist") as error:
            command(name)
        assert (error.value.what, error.value.fix) == (f"run {name!r}", "choose from: demo")


@pytest.mark.parametrize(
    "reference", ["../../victim", "objects", "demo", "/", "removed/../..", "raw_documents/../x", ""]
)
def test_nothing_outside_the_store_can_be_named(filled: Store, rm: Rm, reference: str) -> None:
    before = filled.ids()
    for options in ({}, {"restore": True}):
        with pytest.raises((ConfigError, ArtifactError)):
            rm(reference, yes=True, **options)
    assert filled.ids() == before


def test_the_remains_of_an_artifact_without_a_manifest_are_kept_too(
    store: Store, monkeypatch: Any
) -> None:
    monkeypatch.setattr(artifact_commands, "open_store", lambda: store)
    stores.fill(store)
    raw = store.find(f"demo/{RAW}")
    (raw.path / "manifest.json").unlink()
    artifact_commands.rm(str(raw), yes=True)
    (kept,) = store.removed()
    assert list((store.root / "removed" / kept / "documents").glob("*.parquet"))
    stores.publish_raw(store)


def test_a_link_in_the_stead_of_an_artifact_is_removed_and_what_it_leads_to_stays(
    store: Store, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(artifact_commands, "open_store", lambda: store)
    stores.fill(store)
    raw = store.find(f"demo/{RAW}")
    shutil.move(raw.path, tmp_path / "victim")
    raw.path.symlink_to(tmp_path / "victim")
    artifact_commands.rm(str(raw), yes=True)
    artifact_commands.rm(empty=True, yes=True)
    assert (tmp_path / "victim" / "manifest.json").exists()
    assert store.removed() == []


def test_strangers_among_what_was_removed_are_not_deleted(
    store: Store, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(artifact_commands, "open_store", lambda: store)
    mine = store.root / "removed" / "my own notes"
    mine.mkdir(parents=True)
    artifact_commands.rm(empty=True, yes=True)
    assert mine.exists()


def test_where_the_move_fails_the_artifact_stays_and_is_still_sealed(
    store: Store, monkeypatch: Any
) -> None:
    stores.fill(store)
    planned = removal.plan(store, f"demo/{RAW}")

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", refuse)
        with pytest.raises(ArtifactError, match="permission is denied"):
            removal.remove(store, planned)
    assert seal_of(store, f"demo/{RAW}") == "sealed"
    assert not store.refs.get("demo", RAW).removed
    assert store.removed() == []
