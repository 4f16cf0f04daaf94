"""No link in a store leads groundup out of it: a store may be a copy that somebody else made."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import data_contracts
from data_contracts import ArtifactError, Store
from data_contracts.store.index import StoreIndex
from data_contracts.store.verification import verify
from flows.cli import artifact_commands
from tests.security import stores
from tests.security.stores import CLEAN, RAW

# The link in a store → the action that would write or delete something where the link leads.
LINKED = {
    "drafts": "publish",
    f"drafts/{RAW}-ID": "publish",
    f"drafts/{RAW}-ID/files": "publish",
    f"drafts/{RAW}-ID/scratch": "publish",
    f"drafts/{RAW}-ID/scratch/points": "publish",
    "objects": "publish",
    f"objects/{RAW}": "publish",
    f"objects/{RAW}/ID": "publish",
    "locks": "publish",
    "locks/ID": "publish",
    "refs": "point",
    "refs/new": "point",
    f"refs/new/{RAW}": "point",
    "removed": "rm",
}


@pytest.fixture
def filled(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    stores.fill(store)
    monkeypatch.setattr(artifact_commands, "open_store", lambda: store)
    return store


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside of the store with files that a user would miss."""
    folder = tmp_path / "victim"
    for inside in ("files", "scratch", "thesis"):
        (folder / inside).mkdir(parents=True)
        (folder / inside / "mine").write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def plant(link: Path, to: Path) -> None:
    """Replace what is there by a link."""
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(to)


def use(store: Store, raw: Any, how: str) -> None:
    if how == "publish":
        stores.publish_raw(store)
    elif how == "point":
        store.point("new", RAW, raw, "test")
    else:
        artifact_commands.rm(str(raw), yes=True)


@pytest.mark.parametrize("linked", LINKED)
def test_a_link_in_a_store_is_one_error_and_what_it_leads_to_stays(
    filled: Store, victim: Path, linked: str
) -> None:
    raw = filled.find(f"demo/{RAW}")
    if LINKED[linked] == "publish":
        shutil.rmtree(raw.folder)
    link = filled.root / linked.replace("ID", raw.id)
    plant(link, victim)
    before = contents(victim)
    with pytest.raises(ArtifactError, match=f"is a link to {victim}") as error:
        use(filled, raw, LINKED[linked])
    assert error.value.what == str(link)
    assert error.value.fix.startswith(f"move it away: mv -n {link} ./{link.name}.moved-aside-")
    assert contents(victim) == before
    assert not list(victim.rglob("*.json"))


def test_nothing_is_deleted_for_good_through_a_link(filled: Store, victim: Path) -> None:
    artifact_commands.rm(f"demo/{CLEAN}", yes=True)
    removed = filled.root / "removed"
    removed.rename(victim / "removed")
    removed.symlink_to(victim / "removed")
    before = contents(victim)
    with pytest.raises(ArtifactError, match="is a link to"):
        artifact_commands.rm(empty=True, yes=True)
    assert contents(victim) == before


@pytest.mark.parametrize(
    "linked", ["objects", f"objects/{RAW}", f"objects/{RAW}/ID", f"refs/demo/{RAW}", "refs"]
)
def test_what_lies_behind_a_link_is_not_called_sound(
    filled: Store, tmp_path: Path, linked: str
) -> None:
    raw = filled.find(f"demo/{RAW}")
    link = filled.root / linked.replace("ID", raw.id)
    shutil.move(link, tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a link to"):
        verify(filled.find(f"demo/{RAW}"), StoreIndex.read(filled))


def test_one_link_in_an_artifacts_stead_hides_no_other_artifact(
    filled: Store, victim: Path
) -> None:
    raw = filled.find(f"demo/{RAW}")
    other = stores.publish_raw(filled, "other")
    plant(raw.folder, victim)
    assert (RAW, other.id) in filled.ids()
    assert verify(filled.find(other.id), StoreIndex.read(filled)).seal == "unsealed"


def test_a_link_that_was_removed_does_not_come_back(filled: Store, victim: Path) -> None:
    raw = filled.find(f"demo/{RAW}")
    plant(raw.folder, victim)
    artifact_commands.rm(str(raw), yes=True)
    with pytest.raises(ArtifactError, match="is a link to"):
        artifact_commands.rm(str(raw), restore=True)


def test_a_pipe_among_what_a_stage_kept_is_refused_before_it_is_opened(filled: Store) -> None:
    raw = filled.find(f"demo/{RAW}")
    shutil.rmtree(raw.folder)
    scratch = filled.root / "drafts" / f"{RAW}-{raw.id}" / "scratch"
    scratch.mkdir(parents=True)
    os.mkfifo(scratch / "journal")
    with pytest.raises(ArtifactError, match="is a pipe or a device"):
        stores.publish_raw(filled)


def test_the_whole_store_may_be_a_link(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(filled.root)
    linked = Store(tmp_path / "link")
    stores.publish_raw(linked, "other")
    assert verify(linked.find(f"demo/{RAW}"), StoreIndex.read(linked)).seal == "sealed"


@pytest.mark.parametrize("location", ["locks/ID", "drafts", "refs/new"])
def test_what_stands_in_the_way_is_named_with_the_command_that_moves_it(
    filled: Store, location: str
) -> None:
    raw = filled.find(f"demo/{RAW}")
    shutil.rmtree(raw.folder)
    path = filled.root / location.replace("ID", raw.id)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if location.startswith("locks"):
        path.mkdir()
    else:
        path.write_text("")
    with pytest.raises(ArtifactError, match=r"where a (file|folder) should be") as error:
        use(filled, raw, "point" if location.startswith("refs") else "publish")
    assert error.value.fix.startswith(
        f"move away what is there: mv -n {path} ./{path.name}.moved-aside-"
    )


def test_one_module_alone_deletes_folders_of_a_store() -> None:
    calls = []
    for path in Path(data_contracts.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        calls += [path.name for name in attributes if name in ("rmtree", "rmdir")]
    assert calls == ["links.py"]
