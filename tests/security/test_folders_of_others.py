"""A folder of other files that is named as the store keeps its permissions, whatever its names."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from data_contracts.store.traces import Trace, trace_of
from flows import private_home
from tests.flows.conftest import Groundup
from tests.security.test_known_homes import made, own_record

__all__ = ["own_record"]  # a fixture that every test here uses

ID = "0123456789abcdef01234567"
FOREIGN = {
    "site with objects": ["objects/web.html", "index.html"],
    "site of objects alone": ["objects/web.html"],
    "pages by id": [f"objects/users/{ID}/photo.jpg"],
    "blog": ["drafts/a-post.md", "posts/another.md"],
    "blog of drafts alone": ["drafts/a-post.md"],
    "loose Git objects": ["objects/0a/" + "b" * 38, "refs/heads/main"],
    "branches with slashes": ["refs/heads/release/00000001"],
    "cut store": [f"objects/tokenizer/{ID}/manifest.json", "objects/tokenizer/notes.txt"],
}
OURS = [
    f"objects/tokenizer/{ID}/manifest.json",
    f"objects/tokenizer/{ID}/tokenizer.json",
    "refs/demo/tokenizer/00000001.json",
    "refs/demo/tokenizer/00000001.json.01234567.damaged",
    "refs/demo/.recipe/00000001.json",
    f"drafts/release-{ID}/scratch/journal",
    f"drafts/fetch-release-{ID}/x",
    f"locks/{ID}",
    f"removed/release-{ID}-20260131000000-abcd/manifest.json",
]


def fill(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return folder


def open_up(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o2775 if path.is_dir() else 0o664)


def modes(folder: Path) -> dict[str, int]:
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


def is_closed(folder: Path) -> bool:
    return all(mode & 0o077 == 0 for mode in modes(folder).values())


def prepare(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("GROUNDUP_STORE", raising=False)
    at = made(tmp_path / "home")
    monkeypatch.setenv("GROUNDUP_STORE", str(store))
    return private_home.prepare(at)


def test_a_bare_git_repository_keeps_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "project.git"
    subprocess.run(["git", "init", "-q", "--bare", str(store)], check=True)
    open_up(store)
    before = modes(store)
    assert prepare(store, tmp_path, monkeypatch) == []
    assert modes(store) == before


@pytest.mark.parametrize("names", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_in_which_anything_is_not_a_stores_stays_as_it_is(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "folder", names)
    open_up(store)
    before = modes(store)
    assert prepare(store, tmp_path, monkeypatch) == []
    assert modes(store) == before


@pytest.mark.parametrize("refs", ["refs", "names"])
def test_an_older_store_is_closed_by_its_content(
    refs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "store", [name.replace("refs/", f"{refs}/") for name in OURS])
    open_up(store)
    (line,) = prepare(store, tmp_path, monkeypatch)
    assert line.startswith(f"{store} was open")
    assert is_closed(store)


def test_every_folder_of_a_store_shows_whose_it_is(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", OURS)
    for folder in store.iterdir():
        assert trace_of(folder) is Trace.OURS
        (folder / "a link").symlink_to(tmp_path)
        assert trace_of(folder) is Trace.FOREIGN


def test_a_store_that_groundup_fills_is_closed_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part of the store that a command makes is missing from the list above."""
    (tmp_path / "page.txt").write_text("A page of text.")
    store = tmp_path / "store"
    groundup = Groundup(tmp_path / "made", 0, tmp_path)
    groundup.environment["GROUNDUP_STORE"] = str(store)
    sources = f"sources=[{{kind: files, paths: ['{tmp_path}/*.txt']}}]"
    groundup.run("stage", "crawl", "--name", "pages", "--set", sources)
    open_up(store)
    (line,) = prepare(store, tmp_path, monkeypatch)
    assert line.startswith(f"{store} was open")
    assert is_closed(store)


def test_a_fresh_empty_folder_becomes_a_private_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    for names in ([], ["objects", "refs"]):
        for name in ["", *names]:
            (store / name).mkdir(exist_ok=True)
        open_up(store)
        (line,) = prepare(store, tmp_path, monkeypatch)
        assert line.startswith(f"{store} was open")
        assert is_closed(store)


def test_an_empty_folder_beside_other_files_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "site", ["index.html"])
    (store / "objects").mkdir()
    open_up(store)
    before = modes(store)
    assert prepare(store, tmp_path, monkeypatch) == []
    assert modes(store) == before


def test_a_cache_is_told_by_its_content_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fill(tmp_path / "caches", ["0123456789abcdef/photo.jpg", "sha256.sqlite"])
    fill(cache / "0123456789abcdee", OURS)
    open_up(cache)
    monkeypatch.setenv("GROUNDUP_CACHE", str(cache))
    monkeypatch.setenv("GROUNDUP_STORE", "s3://bucket/prefix")
    private_home.prepare(made(tmp_path / "other"))
    assert modes(cache)[str(cache / "0123456789abcdef/photo.jpg")] == 0o664
    assert is_closed(cache / "0123456789abcdee")
    assert os.stat(cache / "sha256.sqlite").st_mode & 0o077 == 0
